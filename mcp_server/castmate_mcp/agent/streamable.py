"""MCP over streamable HTTP: the same server behind keys or OAuth, for many callers at once."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, Final
from urllib.parse import urlsplit

from mcp.server.auth.middleware.bearer_auth import (
    AuthenticatedUser,
    AuthorizationContext,
    authorization_context,
)
from mcp.server.auth.provider import AccessToken, TokenVerifier
from mcp.server.auth.settings import AuthSettings
from mcp.server.mcpserver import Context
from mcp.server.streamable_http import (
    MCP_SESSION_ID_HEADER,
    EventStore,
    StreamableHTTPServerTransport,
)
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecuritySettings
from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bind_contextvars

from castmate.addresses import is_here
from castmate.errors import CastmateError, SettingsError
from castmate.jobs.keys import LOCAL, Key, KeyRing, share_of
from castmate.jobs.keys import Scope as KeyScope
from castmate.jobs.opening import database_url
from castmate.service import Castmate
from castmate_mcp.agent.server import Register, build_server
from castmate_mcp.agent.studio import calling_key
from castmate_mcp.agent.surrogates import mend
from castmate_mcp.http.auth import from_here
from castmate_mcp.http.body import MAX_JSON_BYTES, expected_bytes
from castmate_mcp.http.envelope import as_response
from castmate_mcp.http.gateway import gateway
from castmate_mcp.http.limits import MAX_SESSIONS, beyond_share
from castmate_mcp.http.oauth import KeyToken, OAuthTokens
from castmate_mcp.settings import ServerSettings

PATH: Final = "/mcp"
SCOPES: Final = [KeyScope.GENERATE.value, KeyScope.READ.value]
_HERE: Final = ("127.0.0.1", "localhost", "[::1]")


def build_mcp_app(
    castmate: Castmate[ServerSettings],
    *,
    extra: Sequence[Register] = (),
    event_store: EventStore | None = None,
    retry_interval: int | None = None,
) -> Starlette:
    """The application for `build_app`, which runs its lifespan and serves it under its own paths.

    Args:
        castmate: Opened; the caller closes it.
        extra: Registers more; the conformance tests add their fixtures.
        event_store: Keeps sent events for clients of the older era that reconnect; without it
            they call get_job.
        retry_interval: When those clients reconnect, in milliseconds.

    Raises:
        SettingsError: An OAuth issuer is set, but no audience for its tokens.
    """
    settings = castmate.settings
    if settings.oauth_issuer is not None and settings.public_url is None:
        raise SettingsError(
            "CASTMATE_OAUTH_ISSUER needs CASTMATE_PUBLIC_URL: tokens are made for that address."
        )
    address = settings.public_url or f"http://127.0.0.1:{settings.port}"
    resource, issuer = f"{address}{PATH}", settings.oauth_issuer
    verifier = Callers(castmate.keys, resource, settings)
    server = build_server(castmate, base_url=_base_url, extra=extra)
    server.admit = _count
    app = server._lowlevel_server.streamable_http_app(
        streamable_http_path=PATH,
        event_store=event_store,
        retry_interval=retry_interval,
        max_request_body_size=MAX_JSON_BYTES,
        max_sessions=MAX_SESSIONS,
        stateless_http=not _keeps_sessions(settings),
        transport_security=_protection(settings),
        auth=AuthSettings.model_validate(  # from texts: a parsed URL gains a slash
            {
                "issuer_url": issuer or address,
                # Without an issuer there is no document to read: the operator creates the keys.
                "resource_server_url": resource if issuer else None,
                "required_scopes": SCOPES,
                "validate_token_resource": issuer is not None,
            }
        ),
        token_verifier=verifier,
    )
    app.user_middleware.insert(0, Middleware(LocalCallers, verifier))
    sessions = Sessions(server._lowlevel_server.session_manager)
    app.user_middleware.append(Middleware(Gated, sessions))
    return app


class Callers(TokenVerifier):
    """Identifies bearer tokens: Castmate's keys, the OAuth issuer's tokens, or this machine."""

    def __init__(self, keys: KeyRing, resource: str, settings: ServerSettings) -> None:
        self._keys, self._resource = keys, resource
        self._oauth = OAuthTokens(settings, resource) if settings.oauth_issuer else None
        self.local_token = secrets.token_urlsafe(32)

    async def verify_token(self, token: str) -> AccessToken | None:
        """The caller, or None if the token is unknown."""
        if secrets.compare_digest(token.encode(), self.local_token.encode()):
            return self._token(LOCAL) if await self.open_to_this_machine() else None
        if (key := await self._keys.find(token)) is not None:
            return self._token(key)
        return await self._oauth.verify(token) if self._oauth else None

    async def open_to_this_machine(self) -> bool:
        """Whether no key was ever created and OAuth is not set up."""
        return self._oauth is None and not await self._keys.configured()

    def _token(self, key: Key) -> KeyToken:
        bind_contextvars(key=key.name)  # for the log line
        scopes = [scope.value for scope in key.scopes]
        return KeyToken(
            token="", client_id=key.name, scopes=scopes, resource=self._resource, key=key
        )


class LocalCallers:
    """Lets programs on this machine in without a key, until the first key is created."""

    def __init__(self, app: ASGIApp, callers: Callers) -> None:
        self._app, self._callers = app, callers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            if (
                "authorization" not in headers
                and from_here(headers)
                and await self._callers.open_to_this_machine()
            ):
                with_token = MutableHeaders(raw=[*headers.raw])
                with_token["authorization"] = f"Bearer {self._callers.local_token}"
                scope = {**scope, "headers": with_token.raw}
        await self._app(scope, receive, send)


class Sessions:
    """Limits each caller to a share of all sessions."""

    def __init__(self, manager: StreamableHTTPSessionManager) -> None:
        self._manager, self._admit = manager, manager._admit_session
        # The SDK limits all sessions together, and has no public way to limit one caller's.
        manager._admit_session = self._admit_within_share  # type: ignore[method-assign]

    def check_room(self, key: Key, user: AuthenticatedUser) -> None:
        """Check that a key may open one more session.

        Raises:
            Overloaded: The key has used up its share.
        """
        if not self._has_room(authorization_context(user)):
            raise beyond_share(key, share_of(MAX_SESSIONS), "MCP sessions open")

    def _admit_within_share(
        self, requestor: AuthorizationContext | None
    ) -> StreamableHTTPServerTransport | None:
        """Admit one session at a time, also when several requests passed `check_room` at once."""
        return self._admit(requestor) if self._has_room(requestor) else None

    def _has_room(self, requestor: AuthorizationContext | None) -> bool:
        if requestor is None or requestor["client_id"] == LOCAL.name:
            return True
        owners = self._manager._session_owners.values()
        return sum(owner == requestor for owner in owners) < share_of(MAX_SESSIONS)


class Gated:
    """Buffers bodies within the same limits as the REST API, and none for strangers.

    HTTP reports an overload of the whole server: there is no room to read whose call it is.
    """

    def __init__(self, app: ASGIApp, sessions: Sessions) -> None:
        self._app, self._sessions = app, sessions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http" or not scope["user"].is_authenticated:
            return await self._app(scope, receive, send)
        request = Request(scope)
        gate, key = gateway(request).gate, scope["user"].access_token.key
        with ExitStack() as held:
            try:
                if request.method == "GET":  # a stream that stays open
                    held.enter_context(gate.streams.hold_for(key))
                else:
                    held.enter_context(gate.requests.hold_for(key))
                    num_bytes = expected_bytes(request, MAX_JSON_BYTES)
                    held.enter_context(gate.body_bytes.hold_for(key, num_bytes))
                if MCP_SESSION_ID_HEADER not in request.headers:
                    self._sessions.check_room(key, scope["user"])
            except CastmateError as error:
                return await as_response(error)(scope, receive, send)
            await self._app(scope, _mended(receive), send)


def _mended(receive: Receive) -> Receive:
    """The same request with its whole body, in which every lone surrogate is marked."""

    async def mended() -> Message:
        message, body = await receive(), bytearray()
        while message["type"] == "http.request":
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if not more or len(body) > MAX_JSON_BYTES:  # the transport reports that
                return {"type": "http.request", "body": mend(bytes(body)), "more_body": more}
            message = await receive()
        return message

    return mended


def _keeps_sessions(settings: ServerSettings) -> bool:
    if settings.mcp_sessions is not None:
        return settings.mcp_sessions
    return database_url(settings).startswith("sqlite")


def _protection(settings: ServerSettings) -> TransportSecuritySettings:
    """Allow only this server's names, so that no page can point its own name at this machine.

    On an address that others can reach, under any name, everybody needs a key anyway.
    """
    if not is_here(settings.host) and settings.public_url is None:
        return TransportSecuritySettings(enable_dns_rebinding_protection=False)
    hosts = [f"{host}{port}" for host in _HERE for port in ("", ":*")]
    origins = [f"http://{host}" for host in hosts]
    if settings.public_url is not None:
        hosts.append(urlsplit(settings.public_url).netloc)
        origins.append(settings.public_url)
    return TransportSecuritySettings(allowed_hosts=hosts, allowed_origins=origins)


def _count(ctx: Context[Any, Any]) -> None:
    """Count a call against its key's rate limit, together with those of the REST API.

    Beyond the limit comes a tool error rather than HTTP's 429: a model reads the error and calls
    again in time, while hosts hide a 429 or take the server for broken.
    """
    request = ctx.request_context.request
    assert isinstance(request, HTTPConnection)
    gateway(request).rate.take(calling_key())


def _base_url(connection: HTTPConnection) -> str:
    return gateway(connection).base_url(connection)
