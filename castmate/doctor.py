"""The checks of `castmate doctor`: what each one found, and how to repair it."""

from __future__ import annotations

import asyncio
import os
import platform
import stat
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, entry_points, version

import numpy as np

from castmate import __version__
from castmate.clients.local import LocalClient
from castmate.engines.bundle import Bundle
from castmate.errors import BundleError, SettingsError, Unavailable
from castmate.files import make_private_folder
from castmate.images import Reference, encode
from castmate.router import not_set_up
from castmate.schema import GenerateRequest, OutputFormat
from castmate.settings import Settings

_PACKAGES = ("mcp", "numpy", "onnxruntime", "pillow", "pydantic", "tokenizers")


@dataclass(frozen=True)
class Check:
    """The result of one check.

    Attributes:
        name: What was checked.
        ok: Whether Castmate works with it.
        found: What is there.
        fix: What to do if it is not ok.
    """

    name: str
    ok: bool
    found: str
    fix: str = ""


def examine(settings: Settings) -> Iterator[Check]:
    """Run every check, fast ones first; a failure does not stop the others."""
    yield Check(
        "python",
        sys.version_info >= (3, 11),
        f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        "Install Python 3.11 or newer.",
    )
    yield _packages()
    yield _commands()
    yield Check("threads", True, f"{settings.threads or 'all'} of {os.cpu_count()} cores")
    data_dir = _data_dir(settings)
    yield data_dir
    if data_dir.ok:
        yield _private(settings)
        yield _secret(settings)
    if data_dir.ok or settings.database_url is not None:
        yield asyncio.run(_ledger(settings))
    yield _image_roots(settings)
    absent = not_set_up(settings)
    yield _clients(settings, absent)
    if "local" in settings.clients:
        bundle = _bundle(settings)
        yield bundle
        if bundle.ok:
            yield asyncio.run(_drawing(settings))
    if "triton" in settings.clients:
        for url in settings.triton_urls:
            yield asyncio.run(_triton(url))
    if "wavespeed" in settings.clients and "wavespeed" not in absent:
        yield asyncio.run(_wavespeed(settings))


def _packages() -> Check:
    found, missing = [f"castmate {__version__}"], []
    for name in _PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    fix = f"Missing: {', '.join(missing)}. Run `pip install --upgrade castmate`."
    return Check("packages", not missing, ", ".join(found), fix)


def _commands() -> Check:
    names = sorted(entry.name for entry in entry_points(group="castmate.commands"))
    fix = "Run `pip install castmate` (or `pip install -e .` in a checkout) again."
    return Check("commands", bool(names), ", ".join(names) or "none", fix)


def _data_dir(settings: Settings) -> Check:
    try:
        make_private_folder(settings.data_dir)
        tempfile.TemporaryFile(dir=settings.data_dir).close()
    except OSError as error:
        fix = f"Make it writable or set CASTMATE_DATA_DIR to another folder ({error.strerror})."
        return Check("data_dir", False, str(settings.data_dir), fix)
    return Check("data_dir", True, str(settings.data_dir))


def _private(settings: Settings) -> Check:
    mode = stat.S_IMODE(settings.data_dir.stat().st_mode)
    found = f"the data folder has mode {mode:04o}"
    fix = (
        "Other users of this machine may read prompts, pictures and the secret in it: "
        f"`chmod -R go= {settings.data_dir}`."
    )
    return Check("private", os.name != "posix" or not mode & 0o077, found, fix)


def _secret(settings: Settings) -> Check:
    from castmate.jobs.storage import SECRET, read_secret  # loads obstore

    if settings.files_secret is not None:
        return Check("secret", True, "the one in CASTMATE_FILES_SECRET")
    try:
        read_secret(settings.data_dir)
    except FileNotFoundError:
        return Check("secret", True, "drawn when it is first needed")
    except SettingsError as error:
        return Check("secret", False, str(settings.data_dir / SECRET), str(error))
    return Check("secret", True, str(settings.data_dir / SECRET))


def _image_roots(settings: Settings) -> Check:
    missing = [str(root) for root in settings.image_roots if not root.is_dir()]
    found = ", ".join(map(str, settings.image_roots)) or "none: agents can name URLs, not paths"
    fix = f"Not a folder: {', '.join(missing)}. Change CASTMATE_IMAGE_ROOTS."
    return Check("image_roots", not missing, found, fix)


def _clients(settings: Settings, absent: Mapping[str, str]) -> Check:
    names = [name for name in settings.clients if name not in absent]
    lacking = "; ".join(f"{name} ({why})" for name, why in absent.items())
    found = " then ".join(names) or "none"
    fix = f"Set up one of them: {lacking}. Or change CASTMATE_CLIENTS."
    return Check(
        "clients", bool(names), f"{found}; not set up: {lacking}" if lacking else found, fix
    )


async def _ledger(settings: Settings) -> Check:
    from castmate.jobs.opening import open_database  # loads SQLAlchemy
    from castmate.jobs.service import database_url

    # The URL may hold a password.
    own = settings.database_url is None
    shown = f"SQLite in {settings.data_dir}" if own else "the one in CASTMATE_DATABASE_URL"
    try:
        database = await open_database(database_url(settings))
    except (SettingsError, Unavailable) as error:
        return Check("ledger", False, shown, str(error))
    await database.aclose()
    return Check("ledger", True, shown)


def _bundle(settings: Settings) -> Check:
    try:
        bundle = Bundle.open(settings.bundle)
        bundle.check()
    except BundleError as error:
        return Check("bundle", False, settings.bundle, str(error))
    manifest = bundle.manifest
    found = f"{bundle.name} ({manifest.engine}, {manifest.precision}) in {bundle.path}"
    return Check("bundle", True, found)


async def _drawing(settings: Settings) -> Check:
    """Run every graph, in one denoise step of the smallest picture."""
    request = GenerateRequest.parse(
        {"prompt": "a test", "image": "-", "size": "512*512", "num_inference_steps": 1}
    )
    grey = encode(np.full((64, 64, 3), 128, np.uint8), OutputFormat.PNG)
    start = time.perf_counter()
    try:
        client = LocalClient.open(settings)
    except BundleError as error:
        return Check("drawing", False, "the model does not load", str(error))
    try:
        loaded = time.perf_counter()
        result = await client.generate(request, Reference.from_bytes(grey, "the test picture"))
    finally:
        await client.aclose()
    seconds = result.timings_ms["total"] / 1000
    return Check(
        "drawing",
        True,
        f"{result.client} loads in {loaded - start:.1f} s and takes a step in {seconds:.1f} s",
    )


async def _triton(url: str) -> Check:
    """Ask the model itself: its server says ready even when the model's process is dead."""
    from castmate.clients.triton import TritonClient  # loads gRPC

    client = TritonClient((url,))
    try:
        state = await client.probe(url)
    except Unavailable as error:
        return Check("triton", False, url, str(error))
    finally:
        await client.aclose()
    return Check("triton", True, f"{url} draws with {state['model']}, {state['waiting']} wait")


async def _wavespeed(settings: Settings) -> Check:
    """Ask for the balance, which is free and needs a valid key."""
    from castmate.clients.wavespeed.client import WaveSpeedClient  # loads an HTTP client

    client = WaveSpeedClient(settings)
    try:
        balance_usd = await client.balance_usd()
    except Unavailable as error:
        return Check("wavespeed", False, settings.wavespeed_base_url, str(error))
    finally:
        await client.aclose()
    fix = "Top the account up, or take wavespeed out of CASTMATE_CLIENTS."
    found = f"{settings.wavespeed_base_url} takes the key; ${balance_usd:.2f} left"
    return Check("wavespeed", balance_usd > 0, found, fix)
