"""Prints the model's inputs as `GET /api/v3/models` describes them.

ComfyUI's nodes bring a copy, for when no server answers:
`python -m castmate_mcp.rest.describe > comfyui/inputs.json`.
"""

from __future__ import annotations

import json
import sys

from castmate_mcp.rest.account import request_schema


def text() -> str:
    """The document; what each model decides for itself has no default in it."""
    return json.dumps(request_schema(None), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(text())
