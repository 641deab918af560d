"""The interface of every image source, and of the router."""

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
    """How far a generation is.

    Attributes:
        step: Denoise steps done, over all pictures of the request.
        total: All denoise steps of the request.
        waits_for: Why it waits, if no client can draw now.
        images: The request's finished pictures, in order.
    """

    step: int
    total: int
    waits_for: str = ""
    images: tuple[GeneratedImage, ...] = field(default=(), repr=False, compare=False)


@dataclass(frozen=True)
class Check:
    """The result of one check.

    Attributes:
        name: What was checked.
        ok: Whether Castmate works with it.
        found: What was found.
        fix: What to do if it is not ok.
    """

    name: str
    ok: bool
    found: str
    fix: str = ""


ProgressCallback = Callable[[Progress], None]


@runtime_checkable
class Resting(Protocol):
    """An image source that knows for how long its backends get no calls."""

    @property
    def ready_in_s(self) -> float:
        """Seconds until a call may succeed; infinite while a running call decides that."""
        ...


@runtime_checkable
class Defaulting(Protocol):
    """An image source that knows its model's defaults."""

    @property
    def defaults(self) -> Defaults | None:
        """The model's defaults; None until the model has been asked."""
        ...


@runtime_checkable
class Styled(Protocol):
    """An image source that knows the styles of its model."""

    @property
    def styles(self) -> Sequence[str]:
        """The styles' names; empty until the model has been asked."""
        ...


@runtime_checkable
class Encoder(Protocol):
    """An image source that caches encoded characters, and can encode one before it is drawn."""

    async def encode(self, reference: Reference) -> None:
        """Encode a character, so that its first picture does not wait for that.

        Raises:
            Unavailable: It cannot now; its first picture will encode it.
        """
        ...


@runtime_checkable
class Resident(Protocol):
    """An image source that loads a model into this process."""

    @property
    def residency(self) -> Residency | None:
        """Which of its graphs stay on the GPU; None if it draws without one."""
        ...


@runtime_checkable
class Frames(Protocol):
    """An image source that can show which part of a reference it draws from."""

    async def frame(self, reference: Reference, matting: Matting) -> Framed:
        """The part of a reference that the image encoders see.

        Args:
            reference: The picture of the character.
            matting: As a request asks.
        """
        ...


@dataclass(frozen=True)
class Servers:
    """The servers behind an image source, as it knows them now.

    Attributes:
        usable: How many get requests.
        resting: How many failed, and get none until they answer again.
        ahead: Requests, of any caller, at the usable ones when they were last asked.
    """

    usable: int
    resting: int
    ahead: int


@runtime_checkable
class Served(Protocol):
    """An image source that sends its requests to servers."""

    @property
    def servers(self) -> Servers:
        """The servers that it knows."""
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
        """Draw the pictures of one request; cancelling the task stops between two steps.

        Args:
            request: A valid request; its `image` is ignored.
            reference: The picture that `request.image` names, already read and checked.
            on_progress: Called in the event loop, steps in order.
            payments: Where a client that costs money records what it spends; without it, such a
                client sends nothing. Free clients ignore it.

        Raises:
            InvalidRequest: No client can draw it.
            Unavailable: This client cannot draw it now.
        """
        ...

    async def aclose(self) -> None:
        """Free the client's resources."""
        ...
