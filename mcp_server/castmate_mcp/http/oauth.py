"""Tokens of an OAuth issuer, for servers whose callers log in elsewhere."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final

import jwt
from mcp.server.auth.provider import AccessToken

from castmate.jobs.keys import Key, Scope
from castmate_mcp.settings import ServerSettings

_ALGORITHMS: Final = ["RS256", "RS384", "RS512", "ES256", "ES384", "EdDSA", "PS256"]
_TIMEOUT_S: Final = 10
_log = logging.getLogger(__name__)


class KeyToken(AccessToken):
    """What a request was let in with."""

    key: Key


class OAuthTokens:
    """Checks signature, issuer, audience and time of JWTs; keys come from the issuer's JWKS."""

    def __init__(self, settings: ServerSettings, resource: str) -> None:
        """Nothing is fetched yet.

        Args:
            settings: The issuer, and where its keys are.
            resource: What tokens must have been made for: the address of our MCP endpoint.
        """
        self._issuer, self._resource = settings.oauth_issuer, resource
        url = settings.oauth_jwks_url or f"{settings.oauth_issuer}/.well-known/jwks.json"
        self._jwks = jwt.PyJWKClient(url, cache_keys=True, timeout=_TIMEOUT_S)

    async def verify(self, token: str) -> AccessToken | None:
        """The caller of a token, or None where it is not for us or no longer valid."""
        try:
            claims = await asyncio.to_thread(self._claims, token)
        except jwt.PyJWTError as error:
            _log.info("a token was refused: %s", error)
            return None
        scopes = _scopes(claims)
        key = Key(f"oauth:{claims['sub']}", frozenset(scopes))
        return KeyToken(
            token="",
            client_id=key.name,
            subject=str(claims["sub"]),
            scopes=[scope.value for scope in scopes],
            expires_at=int(claims["exp"]),
            resource=self._resource,
            claims={"iss": claims["iss"]},
            key=key,
        )

    def _claims(self, token: str) -> dict[str, Any]:
        signer = self._jwks.get_signing_key_from_jwt(token)
        claims: dict[str, Any] = jwt.decode(
            token,
            signer,
            algorithms=_ALGORITHMS,
            issuer=self._issuer,
            audience=self._resource,
            options={"require": ["exp", "iss", "aud", "sub"]},
        )
        return claims


def _scopes(claims: dict[str, Any]) -> list[Scope]:
    granted = claims.get("scope", claims.get("scp", ""))
    names = granted.split() if isinstance(granted, str) else granted
    return [scope for scope in Scope if scope.value in names]
