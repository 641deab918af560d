"""Prints the model's inputs as `GET /api/v3/models` describes them.

ComfyUI's nodes bring a copy, for when no server answers:
`python -m castmate_mcp.rest.describe > comfyui/inputs.json`.
"""

from __future__ import annotations

import json
import sys

from castmate.engines.bundle import Bundle
from castmate_mcp.rest.account import request_schema


def text() -> str:
    """The document, with the defaults of the shipped model."""
    schema = request_schema(Bundle.open("toon").manifest.defaults)
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(text())
