"""One operation of the API: how it is asked, what it takes and gives, and what does it.

The routes and the OpenAPI document are made of the same list of these.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from castmate.errors import InvalidRequest
from castmate.jobs.keys import Key, Scope
from castmate.validation import problems_of
from castmate_mcp.http.body import MAX_JSON_BYTES, expected_bytes, read_json
from castmate_mcp.http.gateway import Gateway, gateway
from castmate_mcp.http.session import caller_or_session

Model = TypeVar("Model", bound=BaseModel)

NOBODY: Final = Key("(nobody)", frozenset(), concurrency=0)
"""Who asks where no key is needed: no key is called so."""


@dataclass(frozen=True)
class Call:
    """A request that may be answered.

    Attributes:
        request: As it came.
        gateway: The server.
        key: Whose it is.
    """

    request: Request
    gateway: Gateway
    key: Key

    @property
    def base_url(self) -> str:
        """Our address as the caller sees it."""
        return self.gateway.base_url(self.request)

    async def json(self, model: type[Model], limit: int = MAX_JSON_BYTES) -> Model:
        """The body as a model; null stands for what is left out.

        Args:
            model: Which.
            limit: Bytes that the body may have.

        Raises:
            InvalidRequest: With one `Problem` for each bad field.
            Refusal: It cannot be read.
        """
        return parse(model, await read_json(self.request, limit))

    def query(self, model: type[Model]) -> Model:
        """The query parameters as a model; an empty one is left out.

        Raises:
            InvalidRequest: With one `Problem` for each bad parameter.
        """
        return parse(model, {k: v for k, v in self.request.query_params.items() if v})


@dataclass(frozen=True)
class Operation:
    """One operation.

    Attributes:
        method: HTTP's.
        path: With Starlette's placeholders.
        handler: Does it.
        scope: What a key needs; None is any valid key.
        summary: A few words.
        answer: The model of `data` in a success; of the last event, where there are events.
        body: The model of a JSON body, or of a form's fields where `media` says so.
        media: Of the body.
        max_body_bytes: The largest body.
        limited: It counts against the key's requests.
        alias_of: The path that this one is another name of.
        query: Query parameters: their model, or by name what they mean.
        statuses: What it may answer beside success and what every operation may.
        events: Where it answers with server-sent events: the model of each, by its name.
        files: Where it answers with a file instead of `answer`: its media types.
        needs_key: Whether it needs a key at all, where there are any.
    """

    method: str
    path: str
    handler: Callable[[Call], Awaitable[Response]]
    scope: Scope | None
    summary: str
    answer: Any
    body: type[BaseModel] | None = None
    media: str = "application/json"
    max_body_bytes: int = MAX_JSON_BYTES
    limited: bool = True
    alias_of: str | None = None
    query: Mapping[str, str] | type[BaseModel] | None = None
    statuses: tuple[int, ...] = ()
    events: Mapping[str, type[BaseModel]] | None = None
    files: tuple[str, ...] = ()
    needs_key: bool = True

    def route(self) -> Route:
        """The route that leads to it."""
        return Route(self.path, self._answer, methods=[self.method])

    async def _answer(self, request: Request) -> Response:
        here = gateway(request)
        with here.gate.requests.hold():
            # Before anything is held for it.
            key = (
                await caller_or_session(request, self.scope, time.time())
                if self.needs_key
                else NOBODY
            )
            with here.gate.requests.count(key):
                if self.limited:
                    here.rate.take(key)
                held = expected_bytes(request, self.max_body_bytes) if self.body else 0
                with here.gate.body_bytes.hold_for(key, held):
                    return await self.handler(Call(request, here, key))


def parse(model: type[Model], values: Mapping[str, Any]) -> Model:
    """Values as a model; null stands for what is left out.

    Raises:
        InvalidRequest: With one `Problem` for each bad field.
    """
    try:
        return model.model_validate({k: v for k, v in values.items() if v is not None})
    except ValidationError as error:
        raise InvalidRequest(problems_of(model, error)) from None
