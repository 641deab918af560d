"""Which of several servers gets the next request."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack

import pytest

from castmate.clients.triton import endpoints as module
from castmate.clients.triton.endpoints import Endpoint, Endpoints
from castmate.errors import Unavailable

pytestmark = pytest.mark.anyio


class Clock:
    """What `time.monotonic` tells, moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


class Probes:
    """Answers for the servers that are up, with how busy they are; counts every question."""

    def __init__(self) -> None:
        self.up = {"a", "b", "c"}
        self.frozen: set[str] = set()
        self.load: dict[str, int] = {}
        self.asked: list[str] = []

    async def __call__(self, url: str) -> int:
        self.asked.append(url)
        await asyncio.sleep(0)
        if url in self.frozen:
            await asyncio.Event().wait()
        if url not in self.up:
            raise Unavailable(f"{url} is down")
        return self.load.get(url, 0)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
def probes() -> Probes:
    return Probes()


async def chosen(endpoints: Endpoints, *tried: Endpoint) -> Endpoint:
    endpoint = await endpoints.choose(tried)
    assert endpoint is not None
    return endpoint


async def settle() -> None:
    """Let the probes beside the requests come to their end."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_the_server_with_the_fewest_outstanding_requests_is_chosen(probes: Probes) -> None:
    endpoints = Endpoints(["a", "b", "c"], probes)
    with ExitStack() as busy:
        urls = []
        for _ in range(6):
            endpoint = await chosen(endpoints)
            busy.enter_context(endpoints.using(endpoint))
            urls.append(endpoint.url)
    assert sorted(urls[:3]) == sorted(urls[3:]) == ["a", "b", "c"]


async def test_what_others_have_sent_counts_more_than_whose_turn_it_is(probes: Probes) -> None:
    endpoints = Endpoints(["a", "b", "c"], probes)
    probes.load = {"a": 2, "b": 1, "c": 4}
    assert [(await chosen(endpoints)).url for _ in range(3)] == ["b"] * 3


async def test_of_a_large_fleet_a_few_are_asked(probes: Probes) -> None:
    urls = [f"server-{number}" for number in range(50)]
    probes.up = {*urls}
    endpoints = Endpoints(urls, probes)
    for number in range(1, 21):
        await chosen(endpoints)
        assert len(probes.asked) == 4 * number
    assert len({*probes.asked}) > 20


async def test_a_server_that_does_not_answer_is_passed_over(probes: Probes) -> None:
    endpoints = Endpoints(["a", "b"], probes, survey_s=0.01)
    probes.frozen, probes.load = {"a"}, {"b": 7}
    assert [(await chosen(endpoints)).url for _ in range(2)] == ["b", "b"]
    assert probes.asked.count("a") == 1
    await endpoints.aclose()


async def test_a_server_that_turns_out_to_have_failed_is_passed_over(
    probes: Probes, clock: Clock
) -> None:
    endpoints = Endpoints(["a", "b"], probes)
    probes.up = {"b"}
    assert (await chosen(endpoints)).url == "b"
    assert endpoints.reasons() == ["a is down"]
    probes.up = set()
    endpoints = Endpoints(["a", "b"], probes)
    assert await endpoints.choose([]) is None


async def test_servers_come_and_go_and_one_that_stays_keeps_its_requests(probes: Probes) -> None:
    endpoints = Endpoints(["a", "b"], probes)
    probes.load = {"a": 1}
    stays = await chosen(endpoints)
    assert stays.url == "b"
    with endpoints.using(stays):
        assert endpoints.update(["b", "c"]) == ["a"]
        assert (await chosen(endpoints)).url == "c"
    assert endpoints.update(["b"]) == ["c"]
    assert await chosen(endpoints) is stays


async def test_equal_servers_take_turns(probes: Probes) -> None:
    endpoints = Endpoints(["a", "b"], probes)
    first, *others = [(await chosen(endpoints)).url for _ in range(4)]
    assert sorted([first, others[0]]) == ["a", "b"]
    assert others == [others[0], first, others[0]]


async def test_a_failed_server_gets_no_request_until_it_has_answered_a_probe(
    probes: Probes, clock: Clock
) -> None:
    probes.load = {"b": 1}
    endpoints = Endpoints(["a", "b"], probes)
    endpoints.failed(await chosen(endpoints), "a broke")
    probes.asked.clear()
    assert [(await chosen(endpoints)).url for _ in range(3)] == ["b"] * 3
    assert probes.asked == []  # it rests
    clock.now += 1.1
    assert (await chosen(endpoints)).url == "b"  # nobody waits for the probe
    await settle()
    assert probes.asked == ["a"]
    assert (await chosen(endpoints)).url == "a"


async def test_each_failure_doubles_the_rest_up_to_half_a_minute(
    probes: Probes, clock: Clock
) -> None:
    endpoints = Endpoints(["a", "b"], probes)
    broken = await chosen(endpoints)
    rests = []
    for _ in range(7):
        endpoints.failed(broken, "a broke")
        rests.append(broken.ejected_until - clock.now)
    assert rests == [1, 2, 4, 8, 16, 30, 30]
    endpoints.worked(broken)
    endpoints.failed(broken, "a broke")
    assert broken.ejected_until - clock.now == 1


async def test_when_all_failed_the_next_request_asks_all_and_takes_the_first_that_answers(
    probes: Probes, clock: Clock
) -> None:
    endpoints = Endpoints(["a", "b"], probes)
    for endpoint in (await chosen(endpoints), await chosen(endpoints)):
        endpoints.failed(endpoint, f"{endpoint.url} broke")
    probes.up = set()
    assert await endpoints.choose([]) is None
    assert sorted(endpoints.reasons()) == ["a is down", "b is down"]
    probes.up = {"b"}
    assert (await chosen(endpoints)).url == "b"


async def test_beside_a_full_server_one_that_failed_is_asked_again(
    probes: Probes, clock: Clock
) -> None:
    endpoints = Endpoints(["a", "b"], probes)
    full, broken = await chosen(endpoints), await chosen(endpoints)
    endpoints.failed(broken, "it broke")
    assert await chosen(endpoints, full) is broken


async def test_many_requests_share_one_probe(probes: Probes, clock: Clock) -> None:
    endpoints = Endpoints(["a"], probes)
    endpoints.failed(await chosen(endpoints), "a broke")
    probes.up = {"a"}
    together = await asyncio.gather(*(chosen(endpoints) for _ in range(5)))
    assert {endpoint.url for endpoint in together} == {"a"}
    assert probes.asked == ["a"]


async def test_a_server_that_was_tried_is_not_chosen_again(probes: Probes) -> None:
    endpoints = Endpoints(["a", "b"], probes)
    first = await chosen(endpoints)
    second = await chosen(endpoints, first)
    assert {first.url, second.url} == {"a", "b"}
    assert await endpoints.choose([first, second]) is None


async def test_the_same_address_twice_is_one_server(probes: Probes) -> None:
    endpoints = Endpoints(["a", "a"], probes)
    assert await endpoints.choose([await chosen(endpoints)]) is None


async def test_closing_ends_the_probes(clock: Clock) -> None:
    started = asyncio.Event()

    async def never(url: str) -> int:
        started.set()
        await asyncio.Event().wait()
        return 0

    endpoints = Endpoints(["a", "b"], never)
    endpoints.failed(await chosen(endpoints), "a broke")
    clock.now += 2
    await chosen(endpoints)
    await asyncio.wait_for(started.wait(), 5)
    await asyncio.wait_for(endpoints.aclose(), 5)
