"""Nothing is paid before the user has agreed, and nobody is asked twice a day."""

from __future__ import annotations

import asyncio
import functools
from typing import Any

import pytest
from mcp.types import ElicitRequestParams, ElicitResult
from sqlalchemy import update
from typer.testing import CliRunner, Result

from castmate.cli import app
from castmate.errors import Unavailable
from castmate.jobs.database import Transaction
from castmate.jobs.tables import named_prices
from castmate.router import Router
from tests.doubles import FlatClient
from tests.fakes.paid import PaidClient
from tests.mcp_server.conftest import Agent, Connect

pytestmark = pytest.mark.anyio

PAID = {"wavespeed_api_key": "key", "wavespeed_price_usd": 0.25}


class Broken(FlatClient):
    """One's own GPU, until somebody repairs it."""

    name = "local"

    def __init__(self) -> None:
        super().__init__(error=Unavailable("The GPU fell off the bus."))


def clients(*, free: FlatClient | None = None) -> Any:
    """Opens a router of one's own GPU, which cannot be opened by default, and a paid one."""

    def unopened() -> FlatClient:
        if free is None:
            raise Unavailable("There is no GPU.")
        return free

    hosted = functools.partial(PaidClient, "wavespeed", 0.25)
    return Router({"local": unopened, "wavespeed": hosted}, deadline_s=60)


class User:
    """Answers questions, and remembers them."""

    def __init__(self, action: str = "accept", proceed: bool = True) -> None:
        self.asked: list[str] = []
        self._action, self._proceed = action, proceed

    async def __call__(self, context: object, params: ElicitRequestParams) -> ElicitResult:
        self.asked.append(params.message)
        content = {"proceed": self._proceed} if self._action == "accept" else None
        return ElicitResult.model_validate({"action": self._action, "content": content})


async def ready(agent: Agent) -> Agent:
    """Wait until the clients are open: before that nobody knows who cannot draw."""
    async with asyncio.timeout(10):
        while any(client.opening for client in agent.castmate.router.status()):
            await asyncio.sleep(0.005)
    return agent


async def test_the_user_is_asked_once_a_day_and_the_answer_survives_a_restart(
    connect: Connect,
) -> None:
    user = User()
    for seed in (1, 2):
        async with connect(clients(), **PAID, client_elicitation_callback=user) as agent:
            out = await (await ready(agent)).succeed(seed=seed, num_images=1)
            assert (out["client"], out["status"]) == ("wavespeed", "completed")
            again = await agent.succeed(seed=seed + 10)
            assert again["client"] == "wavespeed"
    assert len(user.asked) == 1
    assert "about $0.25" in user.asked[0]


@pytest.mark.parametrize("user", [User("decline"), User("cancel"), User("accept", proceed=False)])
async def test_a_no_is_a_no(connect: Connect, user: User) -> None:
    async with connect(clients(), **PAID, client_elicitation_callback=user) as agent:
        message = await (await ready(agent)).fail()
        assert "does not want to pay" in message
        assert "nothing was generated or charged" in message
        status = await agent.succeed("get_status")
        assert (status["spent_today_usd"], status["agreed_today"]) == (0, False)


async def test_a_host_that_cannot_ask_is_told_what_to_ask_and_how_to_go_on(
    connect: Connect,
) -> None:
    async with connect(clients(), **PAID) as agent:
        message = await (await ready(agent)).fail(num_images=2)
        assert "would cost about $0.50. Nothing was charged. Ask the user" in message
        assert "accept_cost_usd 0.50" in message
        assert "Ask the user" in await agent.fail(num_images=2, accept_cost_usd=0.25)
        out = await agent.succeed(num_images=2, accept_cost_usd=0.5)
        assert out["client"] == "wavespeed"


async def test_the_agent_cannot_agree_before_a_price_was_named(connect: Connect) -> None:
    async with connect(clients(), **PAID) as agent:
        message = await (await ready(agent)).fail(accept_cost_usd=100)
        assert "counts only after the price was named" in message
        assert "would cost about $0.25. Nothing was charged." in message
        assert "again with accept_cost_usd 0.25, within 15 minutes" in message
        assert (await agent.succeed("get_status"))["spent_today_usd"] == 0


async def test_what_the_agent_agrees_to_is_one_call_and_not_the_day(connect: Connect) -> None:
    async with connect(clients(), **PAID) as agent:
        await (await ready(agent)).fail()
        await agent.succeed(seed=1, accept_cost_usd=0.25)
        assert (await agent.succeed("get_status"))["agreed_today"] is False
        assert "Ask the user" in await agent.fail(seed=2, accept_cost_usd=0.25)
        assert "Ask the user" in await agent.fail(seed=3)
        assert (await agent.succeed("get_status"))["spent_today_usd"] == 0.25
        for seed in (2, 3):
            await agent.succeed(seed=seed, accept_cost_usd=0.25)
        assert "Ask the user" in await agent.fail(seed=4, num_images=4, accept_cost_usd=1)


async def operator(*words: str) -> Result:
    """Run `castmate spend` in the same data folder."""
    return await asyncio.to_thread(lambda: CliRunner().invoke(app, ["spend", *words]))


async def test_the_user_may_allow_the_day_with_a_command_and_take_it_back(
    connect: Connect,
) -> None:
    async with connect(clients(), **PAID) as agent:
        assert "Ask the user" in await (await ready(agent)).fail()
        allowed = await operator("allow")
        assert "Agents of local may pay for hosted pictures until midnight" in allowed.stdout
        for seed in (1, 2):
            await agent.succeed(seed=seed)
        assert (await agent.succeed("get_status"))["agreed_today"] is True
        assert "ask again before they pay" in (await operator("disallow")).stdout
        assert "Ask the user" in await agent.fail(seed=3)


async def test_a_permission_for_a_key_that_does_not_exist_is_refused(connect: Connect) -> None:
    async with connect(clients(), **PAID) as agent:
        await agent.castmate.keys.create("ann")
        for words in (("allow", "--key", "anne"), ("disallow", "--key", "anne")):
            refused = await operator(*words)
            assert refused.exit_code == 2
            assert "there is no key 'anne'; allowed: ann, local" in refused.stderr
        assert (await operator("allow", "--key", "ann")).exit_code == 0
        assert await agent.castmate.consents.given("ann")
        assert not await agent.castmate.consents.given("local")


async def test_a_call_that_is_refused_uses_no_agreement_up(connect: Connect) -> None:
    async with connect(clients(), **PAID) as agent:
        await (await ready(agent)).fail()
        assert "`image`" in await agent.fail(image="nobody.png", accept_cost_usd=0.25)
        await agent.succeed(accept_cost_usd=0.25)


@pytest.mark.parametrize("price_usd", [0.021, 0.0249, 0.03])
async def test_the_price_that_is_named_is_enough(connect: Connect, price_usd: float) -> None:
    options = PAID | {"wavespeed_price_usd": price_usd}
    async with connect(clients(), **options) as agent:
        message = await (await ready(agent)).fail()
        assert "about $0.03" in message
        await agent.succeed(accept_cost_usd=0.03)


async def test_a_price_is_forgotten_after_a_quarter_of_an_hour(connect: Connect) -> None:
    async with connect(clients(), **PAID) as agent:
        await (await ready(agent)).fail()
        database = agent.castmate.ledger.database

        def grow_older(tx: Transaction) -> None:
            older = {"named": named_prices.c.named - 16 * 60}
            tx.connection.execute(update(named_prices).values(older))

        await database.run(grow_older)
        assert "Ask the user" in await agent.fail(accept_cost_usd=0.25)


async def test_while_ones_own_machine_draws_nobody_is_asked(connect: Connect) -> None:
    user = User()
    opener = clients(free=FlatClient())
    async with connect(opener, **PAID, client_elicitation_callback=user) as agent:
        assert (await (await ready(agent)).succeed())["client"] == "flat"
        assert (await agent.succeed("get_status"))["cost_usd"] == 0
    assert user.asked == []


async def test_a_machine_that_fails_meanwhile_costs_nothing_before_the_next_call_asks(
    connect: Connect,
) -> None:
    user = User()
    opener = clients(free=Broken())
    options = {"client_elicitation_callback": user, "wait_s": 0}
    async with connect(opener, **PAID, **options) as agent:
        message = await (await ready(agent)).fail()
        assert "The GPU fell off the bus." in message
        assert "nobody has agreed to pay" in message
        assert "Call generate_character_image again: the user is asked whether to pay." in message
        assert (await agent.succeed("get_status"))["spent_today_usd"] == 0


async def test_a_job_that_waits_for_a_free_machine_says_that_the_user_may_pay_instead(
    connect: Connect,
) -> None:
    user = User()
    options = {"client_elicitation_callback": user, "hold_s": 0.3}
    async with connect(clients(free=Broken()), **PAID, **options) as agent:
        waiting = await (await ready(agent)).succeed()
        assert waiting["status"] == "running"
        assert "tried again by itself" in waiting["progress"]
        assert "The GPU fell off the bus." in waiting["progress"]
        assert "asks the user whether to pay" in waiting["next_step"]
        (listed,) = (await agent.succeed("list_library", kind="jobs"))["items"]
        assert (listed["id"], listed["status"]) == (waiting["job_id"], "waiting")


@pytest.mark.parametrize(("paid", "outcome"), [("never", "error"), ("always", "wavespeed")])
async def test_the_setting_may_answer_for_the_user(
    connect: Connect, paid: str, outcome: str
) -> None:
    user = User()
    options = {"client_elicitation_callback": user, "wait_s": 0}
    async with connect(clients(), **PAID, paid=paid, **options) as agent:
        await ready(agent)
        if outcome == "error":
            assert "nobody has agreed to pay" in await agent.fail()
        else:
            assert (await agent.succeed())["client"] == outcome
            assert (await agent.succeed("get_status"))["spent_today_usd"] == 0.25
    assert user.asked == []


async def test_the_budget_holds_whatever_the_user_says(connect: Connect) -> None:
    async with connect(clients(), **PAID, paid="always", max_usd_per_day=0.3, wait_s=0) as agent:
        await (await ready(agent)).succeed(seed=1)
        assert (await agent.succeed("get_status"))["left_today_usd"] == 0.05
        message = await agent.fail(seed=2)
        assert "CASTMATE_MAX_USD_PER_DAY ($0.30)" in message
        assert "raise the cap, or wait until tomorrow" in message
