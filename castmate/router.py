"""Several clients as one: tries them in order, and moves on only if another one can help."""

from __future__ import annotations

import asyncio
import functools
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final, Self

from castmate.breaker import Breaker
from castmate.clients import registry
from castmate.clients.base import ProgressCallback, Servers
from castmate.clients.payments import Payments, PaymentState
from castmate.defaults import Defaults
from castmate.engines.residency import Residency
from castmate.errors import (
    BudgetExceeded,
    BundleError,
    CastmateError,
    DeadlineExceeded,
    Overloaded,
    SettingsError,
    Unavailable,
)
from castmate.framing import Framed
from castmate.images import Reference
from castmate.route import ClientStatus, Clock, Opener, Route
from castmate.schema import GenerateRequest, GenerateResult, Matting
from castmate.settings import Settings

_PAID: Final = {PaymentState.SUBMITTED, PaymentState.SETTLED}
_LOST: Final = {PaymentState.SUBMITTING, PaymentState.UNKNOWN}


class Router:
    """Offers the same interface as each of its clients."""

    name = "router"

    def __init__(
        self,
        openers: Mapping[str, Opener],
        *,
        deadline_s: float,
        client_share: float = 0.5,
        slow_s: float = math.inf,
        cooldown_s: float = 15.0,
        absent: Mapping[str, str] | None = None,
        defaults: Mapping[str, Defaults | None] | None = None,
        styles: Mapping[str, Sequence[str]] | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        """Nothing is opened yet.

        Args:
            openers: What opens each client, by its name, in the order in which they are asked.
            deadline_s: For a request, over all clients.
            client_share: The share of the remaining time that a client may take if others follow.
            slow_s: A call that takes longer counts as a failure, if there is another client.
            cooldown_s: How long a client that keeps failing gets no calls.
            absent: Clients that are not set up, and why.
            defaults: Of clients whose model is known before they are opened.
            styles: Likewise.
            clock: Seconds, for breakers and the deadline; only tests replace it.
        """
        slow_s = slow_s if len(openers) > 1 else math.inf  # a slow picture beats none
        known, named = defaults or {}, styles or {}
        self._routes = [
            Route(
                name,
                opener,
                Breaker(cooldown_s=cooldown_s, slow_s=slow_s, clock=clock),
                clock,
                known.get(name),
                named.get(name, ()),
            )
            for name, opener in openers.items()
        ]
        self._deadline_s, self._share, self._clock = deadline_s, client_share, clock
        self._absent = dict(absent or {})

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """A router over the clients that the settings name and that are set up.

        Raises:
            SettingsError: CASTMATE_CLIENTS is wrong.
        """
        asked = registry.set_up(settings)
        openers = {client.name: functools.partial(client.open, settings) for client in asked}
        return cls(
            openers,
            deadline_s=settings.deadline_s,
            client_share=settings.client_share,
            slow_s=settings.slow_s,
            cooldown_s=settings.cooldown_s,
            absent=registry.not_set_up(settings),
            defaults={client.name: client.defaults(settings) for client in asked},
            styles={client.name: client.styles(settings) for client in asked},
        )

    async def open(self) -> None:
        """Open every client now, so that the first request does not wait for it.

        This may take seconds, while a model loads. A client that cannot be opened is unavailable.

        Raises:
            SettingsError: No client is set up, or the packages of one are missing.
        """
        self._check_set_up()
        await asyncio.gather(*(route.open() for route in self._routes))

    @property
    def ready_in_s(self) -> float:
        """Seconds until any client admits a call."""
        return min((route.breaker.ready_in_s for route in self._routes), default=0.0)

    @property
    def defaults(self) -> Defaults | None:
        """The defaults for parameters that a request omits, from the client that is asked first.

        None while only that client's server knows them.
        """
        return self._routes[0].defaults if self._routes else None

    @property
    def servers(self) -> Mapping[str, Servers]:
        """The servers of each open client that has any."""
        found = {route.name: route.servers for route in self._routes}
        return {name: servers for name, servers in found.items() if servers is not None}

    @property
    def residency(self) -> Residency | None:
        """Which graphs of a model stay on this process's GPU, if one is loaded."""
        return next((found for route in self._routes if (found := route.residency)), None)

    @property
    def styles(self) -> Sequence[str]:
        """The allowed values of a request's `style`, from the client that is asked first."""
        return self._routes[0].styles if self._routes else ()

    async def encode(self, reference: Reference) -> None:
        """Let every open client that caches encoded characters encode one."""
        for route in self._routes:
            await route.encode(reference)

    async def frame(self, reference: Reference, matting: Matting) -> Framed | None:
        """The part of a reference that the first client that can say uses; None if none can."""
        for route in self._routes:
            if (framed := await route.frame(reference, matting)) is not None:
                return framed
        return None

    def status(self) -> tuple[ClientStatus, ...]:
        """The state of every client, in the order in which they are asked."""
        return (
            *(route.status() for route in self._routes),
            *(ClientStatus(name, False, None, why) for name, why in self._absent.items()),
        )

    async def generate(
        self,
        request: GenerateRequest,
        reference: Reference,
        on_progress: ProgressCallback | None = None,
        payments: Payments | None = None,
    ) -> GenerateResult:
        """Generate with the first client that can; the warnings say why earlier ones did not.

        Progress starts again with each client.

        Raises:
            SettingsError: No client is set up.
            InvalidRequest: A client rejected the request; no other was asked.
            MaybeCharged: A paid reply was lost; no other was asked, so as not to pay twice.
            Unavailable: No client could generate; gives the reason of each.
        """
        self._check_set_up()
        ends = self._clock() + self._deadline_s
        failures: dict[str, CastmateError] = {}
        routes = await self._in_order(payments)
        for route in routes:
            if (left_s := ends - self._clock()) <= 0:
                late = failures[route.name] = DeadlineExceeded("No time was left for it.")
                late.passes = False  # only clients that had time can say whether waiting helps
                continue
            allowed_s = left_s if route is routes[-1] else left_s * self._share
            try:
                result = await route.generate(request, reference, on_progress, payments, allowed_s)
            except (Unavailable, BundleError) as error:
                failures[route.name] = error
            else:
                notes = tuple(f"{name} could not make it: {why}" for name, why in failures.items())
                notes += (f"{result.client} made it instead.",) if notes else ()
                return replace(result, warnings=notes + result.warnings)
        raise _together(failures)

    async def aclose(self) -> None:
        """Close every client."""
        for route in self._routes:
            await route.aclose()

    def _check_set_up(self) -> None:
        if not self._routes:
            reasons = "; ".join(f"{name}: {why}" for name, why in self._absent.items())
            raise SettingsError(f"CASTMATE_CLIENTS names no client that is set up. {reasons}.")

    async def _in_order(self, payments: Payments | None) -> Sequence[Route]:
        """The configured order, but first a client that is already paid: asking it is free."""
        known = await payments.known() if payments else ()
        paid = {payment.client for payment in known if payment.state in _PAID}
        lost = {payment.client for payment in known if payment.state in _LOST}
        return sorted(self._routes, key=lambda route: route.name not in paid - lost)


def _together(failures: Mapping[str, CastmateError]) -> CastmateError:
    """One error for all, of the kind that best says what to do next."""
    if len(failures) == 1:
        return next(iter(failures.values()))
    errors = failures.values()
    message = "No client could make the picture. " + " ".join(
        f"{name}: {error}" for name, error in failures.items()
    )
    waits_s = [error.retry_after_s for error in errors if isinstance(error, Overloaded)]
    together: Unavailable
    if waits_s:
        together = Overloaded(message, retry_after_s=min(waits_s), causes=failures)
    else:
        kinds: tuple[type[Unavailable], ...] = (BudgetExceeded, DeadlineExceeded, Unavailable)
        kind = next(
            kind
            for kind in kinds
            if kind is Unavailable or any(isinstance(e, kind) for e in errors)
        )
        together = kind(message, causes=failures)
    together.passes = any(error.passes for error in errors)
    together.died = any(error.died for error in errors)
    charged = [error.charged for error in errors]
    together.charged = True if True in charged else None if None in charged else False
    return together
