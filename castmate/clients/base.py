"""What every image source offers; the router offers the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from castmate.clients.payments import Payments
from castmate.defaults import Defaults
from castmate.engines.residency import Residency
from castmate.framing import Framed
from castmate.images import Reference
from castmate.schema import GeneratedImage, GenerateRequest, GenerateResult, Matting


@dataclass(frozen=True)
class Progress:
    """Where a generation is.

    Attributes:
        step: Denoise steps done, over all pictures of the request.
        total: Denoise steps in all.
        waits_for: Where no client could draw and it waits for one: why.
        images: The pictures of the request that are finished, in order.
    """

    step: int
    total: int
    waits_for: str = ""
    images: tuple[GeneratedImage, ...] = field(default=(), repr=False, compare=False)


@dataclass(frozen=True)
class Check:
    """One thing that was examined.

    Attributes:
        name: What.
        ok: Whether Castmate works with it.
        found: What is there.
        fix: What to do where it is not ok.
    """

    name: str
    ok: bool
    found: str
    fix: str = ""


ProgressCallback = Callable[[Progress], None]


@runtime_checkable
class Resting(Protocol):
    """An image source that knows when it leaves alone whatever draws for it."""

    @property
    def ready_in_s(self) -> float:
        """When a call has a chance again: 0 is now, infinite is when a running call has ended."""
        ...


@runtime_checkable
class Defaulting(Protocol):
    """An image source that knows what its model gives a request for what that leaves out."""

    @property
    def defaults(self) -> Defaults | None:
        """The model's; None as long as it has not been asked."""
        ...


@runtime_checkable
class Styled(Protocol):
    """An image source that knows the styles of its model."""

    @property
    def styles(self) -> Sequence[str]:
        """Their names; none as long as the model has not been asked."""
        ...


@runtime_checkable
class Encoder(Protocol):
    """An image source that keeps encoded characters, and can encode one before it is drawn."""

    async def encode(self, reference: Reference) -> None:
        """Encode a character, so that its first picture need not wait for it.

        Raises:
            Unavailable: It cannot now; its first picture will encode it.
        """
        ...


@runtime_checkable
class Resident(Protocol):
    """An image source that loads a model into this process."""

    @property
    def residency(self) -> Residency | None:
        """Which of its graphs stay on the GPU; None where it draws without one."""
        ...


@runtime_checkable
class Frames(Protocol):
    """An image source that can show what part of a reference it draws from."""

    async def frame(self, reference: Reference, matting: Matting) -> Framed:
        """The part that is taken, as the image encoders see it.

        Args:
            reference: The picture of the character.
            matting: As a request asks.
        """
        ...


@dataclass(frozen=True)
class Servers:
    """The servers behind an image source, as it knows them now.

    Attributes:
        usable: Those that get requests.
        resting: Those that failed, and are left alone until they answer again.
        ahead: Requests of anybody that the usable ones had when they were asked last.
    """

    usable: int
    resting: int
    ahead: int


@runtime_checkable
class Served(Protocol):
    """An image source that gives its requests to servers."""

    @property
    def servers(self) -> Servers:
        """Those that it knows."""
        ...


class Client(Protocol):
    """An image source."""

    @property
    def name(self) -> str:
        """As in `castmate.clients.registry`; appears in results."""
        ...

    async def generate(
        self,
        request: GenerateRequest,
        reference: Reference,
        on_progress: ProgressCallback | None = None,
        payments: Payments | None = None,
    ) -> GenerateResult:
        """Make the pictures of one request; cancelling the task stops between two steps.

        Args:
            request: A valid request; its `image` is not looked at.
            reference: The picture that `request.image` names, already read and checked.
            on_progress: Called in the event loop, steps in order.
            payments: Where a client that costs money writes what it spends; without it, it sends
                nothing. Clients that cost nothing do not look at it.

        Raises:
            InvalidRequest: Nothing can make it.
            Unavailable: This client cannot make it now.
        """
        ...

    async def aclose(self) -> None:
        """Free what the client holds."""
        ...
