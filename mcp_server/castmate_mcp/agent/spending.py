"""Consent: only the user decides, before the first paid picture of a day.

If the host cannot ask the user, the agent does; its word permits one call, at the quoted price.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from mcp.server.mcpserver import Context, Elicit
from mcp.server.mcpserver.exceptions import ToolError
from pydantic import BaseModel, Field

from castmate.clients import registry
from castmate.jobs.consents import NAMED_FOR_S
from castmate_mcp.agent.studio import GENERATE, Studio
from castmate_mcp.settings import ServerSettings


class Agreement(BaseModel):
    """What the user is asked."""

    proceed: bool = Field(description="Pay for hosted pictures today, within the budget?")


class Unasked(Agreement):
    """The answer where there was no question."""


class Unaskable(Agreement):
    """There is a question, and the host cannot ask it."""

    proceed: bool = False


@dataclass(frozen=True)
class Spending:
    """Decides when to ask, what to say, and what the answer permits."""

    studio: Studio

    @property
    def possible(self) -> bool:
        """Whether a client that costs money is set up and allowed."""
        return self._client is not None and self._settings.paid != "never"

    @property
    def price_usd(self) -> float:
        """The approximate price of a hosted picture."""
        client = self._client
        return client.price_usd(self._settings) if client and client.price_usd else 0.0

    @property
    def price(self) -> str:
        """The price of a picture, in a sentence."""
        if not self.possible:
            return "It is free: drawn on the user's own machine."
        asks = self._settings.paid == "ask"
        return (
            "It is free on the user's own machine. Only while that cannot draw, a hosted service "
            f"does, for about ${self.price_usd:.2f} a picture"
            + (", after the user has agreed." if asks else ", within the user's budget.")
        )

    async def ask(self, ctx: Context[Any, Any], num_images: int) -> Agreement | Elicit[Agreement]:
        """The question for the user, or the answer if there is nothing to ask."""
        if not self.possible:
            return Unasked(proceed=False)
        if self._settings.paid == "always":
            return Unasked(proceed=True)
        if await self.studio.castmate.consents.given(self.studio.caller):
            return Unasked(proceed=True)
        if any(
            client.up and not registry.is_paid(client.name)
            for client in self.studio.castmate.router.status()
        ):
            return Unasked(proceed=False)
        capabilities = ctx.client_capabilities
        if capabilities is None or capabilities.elicitation is None:
            return Unaskable()
        return Elicit(
            f"Your own machine cannot draw now. May {self._title} draw it for about "
            f"${self._quote(num_images):.2f}? The answer holds until midnight (UTC), within your "
            "budget.",
            Agreement,
        )

    def _quote(self, num_images: int) -> float:
        """The price of pictures, rounded up to whole cents."""
        return math.ceil(self.price_usd * num_images * 100 - 1e-6) / 100

    @property
    def _settings(self) -> ServerSettings:
        return self.studio.castmate.settings

    @property
    def _client(self) -> registry.Entry | None:
        return registry.paid(self._settings)

    @property
    def _title(self) -> str:
        return self._client.title if self._client else ""

    async def settle(self, agreement: Agreement) -> bool:
        """Whether the job may cost money; the user's own yes counts for the day.

        Raises:
            ToolError: The user has just said no.
        """
        if isinstance(agreement, Unasked | Unaskable):
            return agreement.proceed
        if not agreement.proceed:
            raise declined()
        await self.studio.castmate.consents.give(self.studio.caller)
        return True

    async def accept(
        self, num_images: int, accept_cost_usd: float | None, tool: str = GENERATE
    ) -> bool:
        """Let one call pay the quoted price, if the host cannot ask the user.

        Args:
            num_images: How many pictures the call requests.
            accept_cost_usd: The price to which, says the agent, the user has agreed.
            tool: The tool that is called.

        Returns:
            True.

        Raises:
            ToolError: The agent was not quoted the price or did not accept it; quotes it.
        """
        price_usd = self._quote(num_images)
        consents, caller = self.studio.castmate.consents, self.studio.caller
        if (
            accept_cost_usd is not None
            and accept_cost_usd >= price_usd
            and await consents.accept_price(caller, price_usd)
        ):
            return True
        await consents.name_price(caller, price_usd)
        early = (
            ""
            if accept_cost_usd is None
            else "accept_cost_usd counts only after the price was named, and for one call. "
        )
        raise ToolError(
            f"The user's own machine cannot draw now, and {self._title} would cost about "
            f"${price_usd:.2f}. Nothing was charged. {early}Ask the user; only if they agree, call "
            f"{tool} again with accept_cost_usd {price_usd:.2f}, within "
            f"{NAMED_FOR_S / 60:.0f} minutes. It pays for that one call."
        )


def declined() -> ToolError:
    """The error that the agent reads after a no."""
    return ToolError(
        "The user does not want to pay for a hosted picture; nothing was generated or charged. "
        "get_status tells when their own machine can draw again."
    )
