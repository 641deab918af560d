"""What several fixtures of the conformance suite are made of."""

from __future__ import annotations

import base64

from mcp.types import (
    ElicitRequest,
    ElicitRequestFormParams,
    EmbeddedResource,
    ImageContent,
    TextContent,
    TextResourceContents,
)

from tests.doubles import picture

PNG = base64.b64encode(picture((1, 1))).decode()
FIXTURE = "A fixture of the conformance suite."


def text(words: str) -> TextContent:
    return TextContent(type="text", text=words)


def image() -> ImageContent:
    return ImageContent(type="image", data=PNG, mime_type="image/png")


def embedded(uri: str, text: str, mime_type: str = "text/plain") -> EmbeddedResource:
    contents = TextResourceContents(uri=uri, mime_type=mime_type, text=text)
    return EmbeddedResource(type="resource", resource=contents)


def question(message: str, name: str, kind: str = "string") -> ElicitRequest:
    schema = {"type": "object", "properties": {name: {"type": kind}}, "required": [name]}
    params = ElicitRequestFormParams.model_validate(
        {"message": message, "requestedSchema": schema, "mode": "form"}
    )
    return ElicitRequest(method="elicitation/create", params=params)
