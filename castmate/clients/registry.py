"""The registry of clients: how to open and check each, which setting it lacks, what it costs.

Nothing else names a client. The modules that a client needs are imported only when it is opened.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from castmate.clients.base import Check, Client
from castmate.errors import BundleError, SettingsError
from castmate.settings import Settings

if TYPE_CHECKING:
    from castmate.defaults import Defaults
    from castmate.engines.licences import Licence
    from castmate.engines.manifest import Manifest


def _nothing(settings: Settings) -> str:
    return ""


def _no_licences(settings: Settings) -> Mapping[str, Licence]:
    return {}


def _unknown(settings: Settings) -> Defaults | None:
    return None


def _no_styles(settings: Settings) -> Sequence[str]:
    return ()


@dataclass(frozen=True)
class Entry:
    """One client.

    Attributes:
        name: As in CASTMATE_CLIENTS and in results.
        title: Its name in sentences.
        open: Opens it; may take seconds. Raises `BundleError` or `Unavailable` if it cannot be used
            now, and `SettingsError` if its packages are missing.
        check: Checks it for `castmate doctor`.
        lacks: The setting that it still needs, in a sentence; empty if it is set up.
        licences: Those of its model, by part, if it knows them.
        defaults: Its model's defaults, if they are known before the client is opened.
        styles: Its model's styles, if they are known before the client is opened.
        price_usd: The approximate price of a picture; None for a free client.
    """

    name: str
    title: str
    open: Callable[[Settings], Client]
    check: Callable[[Settings], Awaitable[Sequence[Check]]]
    lacks: Callable[[Settings], str] = _nothing
    price_usd: Callable[[Settings], float] | None = None
    licences: Callable[[Settings], Mapping[str, Licence]] = _no_licences
    defaults: Callable[[Settings], Defaults | None] = _unknown
    styles: Callable[[Settings], Sequence[str]] = _no_styles

    @property
    def is_paid(self) -> bool:
        """Whether its pictures cost money."""
        return self.price_usd is not None


def named(settings: Settings) -> list[Entry]:
    """The clients that the settings name, in the order in which they are asked; by default all.

    Raises:
        SettingsError: CASTMATE_CLIENTS names one that does not exist, one twice, or none.
    """
    known = {entry.name: entry for entry in CLIENTS}
    names = tuple(known) if settings.clients is None else settings.clients
    listed = ", ".join(known)
    if unknown := [name for name in names if name not in known]:
        raise SettingsError(
            f"CASTMATE_CLIENTS: no such client as {unknown[0]}; there are {listed}."
        )
    if not names or len(set(names)) < len(names):
        raise SettingsError(
            f"CASTMATE_CLIENTS: names each of {listed} at most once, and at least one."
        )
    return [known[name] for name in names]


def set_up(settings: Settings) -> list[Entry]:
    """The named clients that lack no setting.

    Raises:
        SettingsError: As `named`.
    """
    return [entry for entry in named(settings) if not entry.lacks(settings)]


def not_set_up(settings: Settings) -> dict[str, str]:
    """The other named clients, and the setting that each lacks.

    Raises:
        SettingsError: As `named`.
    """
    return {entry.name: why for entry in named(settings) if (why := entry.lacks(settings))}


def paid(settings: Settings) -> Entry | None:
    """The first client that is set up and costs money, if there is one.

    Raises:
        SettingsError: As `named`.
    """
    return next((entry for entry in set_up(settings) if entry.is_paid), None)


def is_paid(name: str) -> bool:
    """Whether a client's pictures cost money."""
    return any(entry.name == name and entry.is_paid for entry in CLIENTS)


def price_usd(settings: Settings) -> float:
    """The approximate price of a picture: 0 if the client that is asked first is free.

    Raises:
        SettingsError: As `named`.
    """
    first = next(iter(set_up(settings)), None)
    return first.price_usd(settings) if first and first.price_usd else 0.0


def licences(settings: Settings) -> dict[str, Licence]:
    """The licences of the clients that are set up, by part of the model.

    Raises:
        SettingsError: As `named`.
    """
    return {
        part: licence
        for entry in set_up(settings)
        for part, licence in entry.licences(settings).items()
    }


def defaults(settings: Settings) -> Defaults | None:
    """The defaults of the client that is asked first.

    None if only that client's server knows them.

    Raises:
        SettingsError: As `named`.
    """
    first = next(iter(set_up(settings)), None)
    return first.defaults(settings) if first else None


def styles(settings: Settings) -> Sequence[str]:
    """The styles of the client that is asked first, as far as they are known before it is opened.

    Raises:
        SettingsError: As `named`.
    """
    first = next(iter(set_up(settings)), None)
    return first.styles(settings) if first else ()


def _open_triton(settings: Settings) -> Client:
    from castmate.clients.triton.client import TritonClient  # loads gRPC, of the extra `triton`

    return TritonClient.open(settings)


def _triton_lacks(settings: Settings) -> str:
    return "" if settings.triton_urls else "CASTMATE_TRITON_URLS is not set"


async def _check_triton(settings: Settings) -> Sequence[Check]:
    from castmate.clients.triton.client import check

    return await check(settings)


def _open_local(settings: Settings) -> Client:
    from castmate.clients.local import LocalClient  # loads an engine

    return LocalClient.open(settings)


async def _check_local(settings: Settings) -> Sequence[Check]:
    from castmate.clients.local_check import check

    return await check(settings)


def _local_licences(settings: Settings) -> Mapping[str, Licence]:
    manifest = _local_manifest(settings)
    return manifest.licences if manifest else {}


def _local_defaults(settings: Settings) -> Defaults | None:
    manifest = _local_manifest(settings)
    return manifest.defaults if manifest else None


def _local_styles(settings: Settings) -> Sequence[str]:
    manifest = _local_manifest(settings)
    return manifest.style_names if manifest else ()


def _local_manifest(settings: Settings) -> Manifest | None:
    try:
        return _manifest(settings.bundle)
    except BundleError:
        return None  # drawing with it reports what is wrong


@functools.cache
def _manifest(bundle: str) -> Manifest:
    from castmate.engines.bundle import Bundle  # loads NumPy

    return Bundle.open(bundle).manifest


def _open_wavespeed(settings: Settings) -> Client:
    from castmate.clients.wavespeed.client import WaveSpeedClient  # loads an HTTP client

    return WaveSpeedClient(settings)


def _wavespeed_lacks(settings: Settings) -> str:
    return "" if settings.wavespeed_api_key else "CASTMATE_WAVESPEED_API_KEY is not set"


async def _check_wavespeed(settings: Settings) -> Sequence[Check]:
    from castmate.clients.wavespeed.client import check

    return await check(settings)


def _wavespeed_defaults(settings: Settings) -> Defaults:
    from castmate.clients.wavespeed.parameters import DEFAULTS

    return DEFAULTS


def _wavespeed_price_usd(settings: Settings) -> float:
    from castmate.clients.wavespeed.parameters import DOCUMENTED_PRICE_USD

    price = settings.wavespeed_price_usd
    return DOCUMENTED_PRICE_USD if price is None else price


# In the default order: users with Triton servers want those servers' model rather than this
# process's demo model, and clients that cost money come last.
CLIENTS: Final[tuple[Entry, ...]] = (
    Entry("triton", "Triton", _open_triton, _check_triton, _triton_lacks),
    Entry(
        "local",
        "This machine",
        _open_local,
        _check_local,
        licences=_local_licences,
        defaults=_local_defaults,
        styles=_local_styles,
    ),
    Entry(
        "wavespeed",
        "WaveSpeed",
        _open_wavespeed,
        _check_wavespeed,
        _wavespeed_lacks,
        _wavespeed_price_usd,
        defaults=_wavespeed_defaults,
    ),
)
