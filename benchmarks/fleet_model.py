"""A fleet as queues in simulated time: arrivals, the ledger's lock, failing GPUs, their scaler.

A prediction's cost to the ledger is measured (`benchmarks.fleet` says where); the time that a GPU
draws is a parameter, since none was measured.
"""

from __future__ import annotations

import math
import random
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import simpy

Process = Generator[simpy.Event, Any, None]
CLAIM_FIRST: Final = 0  # whoever lost its GPU
IN_TURN: Final = 1


@dataclass(frozen=True)
class Costs:
    """What one prediction costs, measured.

    Attributes:
        lock_s: How long a submit or a claim is alone with the order of the queue.
        database_s: CPU time of the database.
        gateway_s: CPU time of the gateways.
    """

    lock_s: float
    database_s: float
    gateway_s: float


@dataclass(frozen=True)
class Plan:
    """A fleet and what it meets; every figure is chosen, none measured.

    Attributes:
        gpus: There at the beginning.
        picture_s: How long a GPU draws a prediction, on average.
        spread: Standard deviation of that, as a share of it.
        load: Arrivals, as a share of what the GPUs can draw.
        predictions: How many arrive.
        partitions: Ledgers, among which tenants are divided evenly.
        database_cores: Of each ledger.
        between_failures_s: Of one GPU, on average; infinite is never.
        noticed_s: Until a failure is noticed, and its prediction waits again.
        load_s: Until a server that starts can draw.
        most_gpus: How many the scaler may have; None is no scaler.
        target_s: Seconds of work a GPU for which the scaler aims.
        burst: When arrivals are doubled, from and to, in seconds.
    """

    gpus: int
    picture_s: float
    load: float
    predictions: int
    spread: float = 0.2
    partitions: int = 1
    database_cores: int = 8
    between_failures_s: float = math.inf
    noticed_s: float = 5.0
    load_s: float = 240.0
    most_gpus: int | None = None
    target_s: float = 12.0
    burst: tuple[float, float] = (0.0, 0.0)


@dataclass
class Outcome:
    """What came of it.

    Attributes:
        acknowledged_s: From the submit to its acknowledgement, of each prediction.
        waited_s: From the submit to the first step of the attempt that drew it.
        began_s: When each of those was submitted, on the simulation's clock.
        ended_s: When the last one was drawn.
        lock_busy_s: How long the locks of all ledgers were held.
        gpus: How many could draw, over time.
        lost: Attempts that ended with their GPU.
    """

    acknowledged_s: list[float] = field(default_factory=list)
    waited_s: list[float] = field(default_factory=list)
    began_s: list[float] = field(default_factory=list)
    ended_s: float = 0.0
    lock_busy_s: float = 0.0
    gpus: list[tuple[float, int]] = field(default_factory=list)
    lost: int = 0


class Fleet:
    """One run of a plan."""

    def __init__(self, plan: Plan, costs: Costs, seed: int = 0) -> None:
        """Nothing has happened yet."""
        self._plan, self._costs = plan, costs
        self._random = random.Random(seed)
        self._clock = simpy.Environment()
        self._locks = [simpy.Resource(self._clock, 1) for _ in range(plan.partitions)]
        self._cores = [
            simpy.Resource(self._clock, plan.database_cores) for _ in range(plan.partitions)
        ]
        self._queue = simpy.PriorityStore(self._clock)
        self._left = plan.predictions
        self._over = self._clock.event()
        self._gpus = self._starting = 0
        self.outcome = Outcome()

    def run(self) -> Outcome:
        """Until every prediction is drawn."""
        for _ in range(self._plan.gpus):
            self._clock.process(self._gpu(0.0))
        self._clock.process(self._arrivals())
        if self._plan.most_gpus is not None:
            self._clock.process(self._scaler())
        self._clock.run(self._over)
        self.outcome.ended_s = self._clock.now
        return self.outcome

    def _arrivals(self) -> Process:
        plan = self._plan
        usual = plan.load * plan.gpus / plan.picture_s
        for number in range(plan.predictions):
            burst = plan.burst[0] <= self._clock.now < plan.burst[1]
            yield self._clock.timeout(self._random.expovariate(usual * (2 if burst else 1)))
            self._clock.process(self._submit(number))

    def _submit(self, number: int) -> Process:
        asked, ledger = self._clock.now, number % self._plan.partitions
        yield from self._alone(ledger)
        self.outcome.acknowledged_s.append(self._clock.now - asked)
        yield self._queue.put(simpy.PriorityItem((IN_TURN, asked), ledger))

    def _gpu(self, after_s: float) -> Process:
        """One GPU: it draws until it fails, and is started again."""
        plan = self._plan
        self._starting += 1
        yield self._clock.timeout(after_s)
        self._starting -= 1
        self._count(+1)
        fails_at = self._clock.now + self._lifetime_s()
        while self._left:
            item = yield self._queue.get()
            yield from self._alone(item.item)
            draws_s = self._drawing_s()
            if self._clock.now + draws_s > fails_at:
                yield self._clock.timeout(max(0.0, fails_at - self._clock.now))
                self.outcome.lost += 1
                self._count(-1)
                yield self._clock.timeout(plan.noticed_s)
                again = simpy.PriorityItem((CLAIM_FIRST, item.priority[1]), item.item)
                yield self._queue.put(again)
                self._clock.process(self._gpu(plan.load_s))
                return
            asked = item.priority[1]
            self.outcome.waited_s.append(self._clock.now - asked)
            self.outcome.began_s.append(asked)
            yield self._clock.timeout(draws_s)
            self._clock.process(self._finish(item.item))

    def _finish(self, ledger: int) -> Process:
        with self._cores[ledger].request() as core:
            yield core
            yield self._clock.timeout(self._costs.database_s)
        self._left -= 1
        if not self._left:
            self._over.succeed()

    def _alone(self, ledger: int) -> Process:
        """Hold the order of a queue, as a submit and a claim do."""
        with self._locks[ledger].request() as lock:
            yield lock
            yield self._clock.timeout(self._costs.lock_s)
        self.outcome.lock_busy_s += self._costs.lock_s

    def _scaler(self) -> Process:
        """KEDA: every 15 s, as many GPUs as the work left asks for; it never takes one away."""
        plan = self._plan
        assert plan.most_gpus is not None
        while self._left:
            yield self._clock.timeout(15)
            unfinished = len(self._queue.items) + self._gpus
            wanted = math.ceil(unfinished * plan.picture_s / plan.target_s)
            for _ in range(min(wanted, plan.most_gpus) - self._gpus - self._starting):
                self._clock.process(self._gpu(plan.load_s))

    def _count(self, change: int) -> None:
        self._gpus += change
        self.outcome.gpus.append((self._clock.now, self._gpus))

    def _lifetime_s(self) -> float:
        between = self._plan.between_failures_s
        return math.inf if math.isinf(between) else self._random.expovariate(1 / between)

    def _drawing_s(self) -> float:
        """Log-normal, of the plan's mean and spread."""
        sigma = math.sqrt(math.log(1 + self._plan.spread**2))
        mean = math.log(self._plan.picture_s) - sigma**2 / 2
        return self._random.lognormvariate(mean, sigma)


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which a share of them is."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, math.floor(share * len(ordered)))]


def lock_limit(costs: Costs, partitions: int = 1) -> float:
    """Predictions a second that the queues' locks let through: each is submitted and claimed."""
    return partitions / (2 * costs.lock_s)
