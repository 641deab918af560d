"""One client of a router: opened when it is first needed, watched by a breaker."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from castmate import tracing
from castmate.breaker import Breaker, BreakerState
from castmate.clients.base import (
    Client,
    Defaulting,
    Encoder,
    Frames,
    Progress,
    ProgressCallback,
    Resident,
    Served,
    Servers,
    Styled,
)
from castmate.clients.payments import Payments
from castmate.defaults import Defaults
from castmate.engines.residency import Residency
from castmate.errors import (
    BudgetExceeded,
    BundleError,
    CastmateError,
    DeadlineExceeded,
    Incapable,
    MaybeCharged,
    Overloaded,
    SettingsError,
    Unavailable,
)
from castmate.framing import Framed
from castmate.images import Reference
from castmate.schema import GenerateRequest, GenerateResult, Matting

Opener = Callable[[], Client]
Clock = Callable[[], float]

_BROKEN: Final = (Unavailable, BundleError, MaybeCharged)
_FULL: Final = (Overloaded, BudgetExceeded, Incapable)


@dataclass(frozen=True)
class ClientStatus:
    """The state of one client of a router.

    Attributes:
        name: The client's name.
        up: Whether it would get the next request.
        breaker: Whether calls go through, or None if the client is not set up.
        last_error: Why it last failed, or why it is not set up; empty after a success.
        opening: Its model is still loading, and requests wait for that.
        defaults: Its model's defaults for parameters that a request omits, once they are known.
    """

    name: str
    up: bool
    breaker: BreakerState | None
    last_error: str = ""
    opening: bool = False
    defaults: Defaults | None = None


class Route:
    """One client of a router: opened when it is first needed, watched by a breaker."""

    def __init__(
        self,
        name: str,
        opener: Opener,
        breaker: Breaker,
        clock: Clock,
        defaults: Defaults | None = None,
        styles: Sequence[str] = (),
    ) -> None:
        self.name, self.breaker, self.last_error = name, breaker, ""
        self._defaults, self._styles = defaults, styles
        self._opener, self._clock = opener, clock
        self._client: Client | None = None
        self._opening: asyncio.Task[Client] | None = None

    async def open(self) -> None:
        """Open the client now; if that fails, the next request tries again.

        Raises:
            SettingsError: Its packages are missing. Any other error is only recorded.
        """
        try:
            await self._opened()
        except SettingsError as error:
            self.last_error = str(error)
            raise
        except Exception as error:
            self.last_error = str(error) or type(error).__name__

    async def generate(
        self,
        request: GenerateRequest,
        reference: Reference,
        on_progress: ProgressCallback | None,
        payments: Payments | None,
        allowed_s: float,
    ) -> GenerateResult:
        """Let the client make it, if its breaker admits the call.

        Raises:
            DeadlineExceeded: It took more than `allowed_s`.
            Unavailable: It has failed too often lately.
        """
        admission = self.breaker.admit()
        if admission is None:
            raise Unavailable(self._why_left_alone())
        start = self._clock()
        good: bool | None = False
        got_on = False

        def watch(progress: Progress) -> None:
            nonlocal got_on
            got_on |= progress.step > 0
            tracing.event("step", done=progress.step, total=progress.total)
            if on_progress is not None:
                on_progress(progress)

        try:
            with tracing.span(f"draw on {self.name}"):
                async with asyncio.timeout(allowed_s):
                    client = await self._opened()
                    result = await client.generate(request, reference, watch, payments)
            good, self.last_error = True, ""
            return result
        except asyncio.CancelledError:
            good = None
            raise
        except TimeoutError:
            self.last_error = f"It did not finish within {_shown(allowed_s)} s."
            late = DeadlineExceeded(self.last_error)
            late.passes = not got_on  # a client that draws too slowly will be too slow again
            raise late from None
        except Exception as error:
            if _is_healthy(error):
                good = None
            else:
                self.last_error = str(error) or type(error).__name__
            raise
        finally:
            self.breaker.record(admission, good, self._clock() - start)

    async def encode(self, reference: Reference) -> None:
        """Let the client encode a character, if it caches them and is open or opening."""
        client = self._client if self._opening is None else await self._opened()
        if isinstance(client, Encoder):
            await client.encode(reference)

    async def frame(self, reference: Reference, matting: Matting) -> Framed | None:
        """The part of a reference that the client uses, if it can say and is open or opening."""
        client: object = self._client if self._opening is None else await self._opened()
        return await client.frame(reference, matting) if isinstance(client, Frames) else None

    def status(self) -> ClientStatus:
        """The client's state."""
        state = self.breaker.state
        up = state is not BreakerState.OPEN and (self._client is not None or not self.last_error)
        opening = self._client is None and not self.last_error
        return ClientStatus(self.name, up, state, self.last_error, opening, self.defaults)

    @property
    def defaults(self) -> Defaults | None:
        """Its model's defaults for parameters that a request omits, as far as they are known."""
        client: object = self._client
        known = client.defaults if isinstance(client, Defaulting) else None
        return known or self._defaults

    @property
    def servers(self) -> Servers | None:
        """Its servers, if it has any and is open."""
        client: object = self._client
        return client.servers if isinstance(client, Served) else None

    @property
    def residency(self) -> Residency | None:
        """Which graphs of its model stay on this process's GPU, if it is open and has one."""
        client: object = self._client
        return client.residency if isinstance(client, Resident) else None

    @property
    def styles(self) -> Sequence[str]:
        """The styles of its model, as far as they are known."""
        client: object = self._client
        return client.styles if isinstance(client, Styled) else self._styles

    async def aclose(self) -> None:
        """Close the client, after waiting for it if it is still opening."""
        if self._opening is not None:
            with contextlib.suppress(Exception):
                self._client = await self._opening
        if self._client is not None:
            await self._client.aclose()

    async def _opened(self) -> Client:
        if self._client is None:
            if self._opening is None:
                self._opening = asyncio.create_task(asyncio.to_thread(self._opener))
            opening = self._opening
            try:
                self._client = await asyncio.shield(opening)  # others may wait for it too
            finally:
                if opening.done() and self._opening is opening:
                    self._opening = None
        return self._client

    def _why_left_alone(self) -> str:
        wait_s = self.breaker.retry_in_s
        until = (
            f"for another {_shown(wait_s)} s"
            if wait_s
            else "until the call that tries it has ended"
        )
        return f"It has failed repeatedly and is left alone {until}. Last: {self.last_error}"


def _is_healthy(error: Exception) -> bool:
    """Whether a client that raises this may be healthy: it rejected the request, and quickly."""
    ours = isinstance(error, CastmateError)
    return ours and (isinstance(error, _FULL) or not isinstance(error, _BROKEN))


def _shown(seconds: float) -> str:
    return f"{seconds:.0f}" if seconds >= 10 else f"{seconds:.2g}"
