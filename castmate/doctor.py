"""The checks of `castmate doctor`: what each one found, and how to repair it."""

from __future__ import annotations

import asyncio
import os
import platform
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, entry_points, version

from castmate import __version__
from castmate.clients import registry
from castmate.clients.base import Check
from castmate.engines.bundle import Bundle
from castmate.engines.cuda import Device
from castmate.engines.family import family_names
from castmate.engines.footprint import Counted, counted, plan_bundle
from castmate.engines.plan import Flavour
from castmate.engines.residency import Residency
from castmate.errors import BundleError, SettingsError, Unavailable
from castmate.files import make_private_folder
from castmate.pipeline.opening import cache_bytes
from castmate.settings import Settings

_PACKAGES = ("mcp", "numpy", "onnxruntime", "pillow", "pydantic", "tokenizers")


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
    yield from _gpu(settings)
    yield Check("threads", True, f"{settings.threads or 'all'} of {os.cpu_count()} cores")
    data_dir = _data_dir(settings)
    yield data_dir
    if data_dir.ok:
        yield _private(settings)
        yield _secret(settings)
    if data_dir.ok or settings.database_url is not None:
        yield asyncio.run(_ledger(settings))
    yield _image_roots(settings)
    try:
        asked = registry.set_up(settings)
    except SettingsError as error:
        yield Check("clients", False, "wrong", str(error))
        return
    yield _clients(asked, registry.not_set_up(settings))
    for client in asked:
        yield from asyncio.run(_examined(client, settings))


def memory_plans(settings: Settings) -> list[tuple[str, Residency | str]]:
    """What would be where on the GPU, or why it does not fit, with a title each.

    For a bundle of plans, on its GPU or in CASTMATE_GPU_MEMORY; for another bundle only where that
    is set: then for the published models, exported or not.
    """
    return list(_memory_plans(settings, cache_bytes(settings)))


def _memory_plans(settings: Settings, caches: int) -> Iterator[tuple[str, Residency | str]]:
    try:
        bundle = Bundle.open(settings.bundle)
    except BundleError:
        return  # a check says why
    if bundle.manifest.engine in list(Flavour):
        memory = settings.gpu_memory or _free_gpu_memory(settings)
        if memory:
            title = f"{bundle.name} in {bundle.path}, {bundle.manifest.precision}"
            side = bundle.manifest.profile.side.max
            yield f"{title}, to {side} px", _planned(plan_bundle, bundle, memory, caches)
    elif settings.gpu_memory:
        for family in family_names():
            for model in counted(family):
                title = f"{model.model}, {model.precision}, to {model.side} px (not exported)"
                yield title, _planned(Counted.plan, model, settings.gpu_memory, caches)


def gains(settings: Settings) -> list[str]:
    """Which GPUs gain from which quantization, a line each; none for a bundle of plans."""
    try:
        if Bundle.open(settings.bundle).manifest.engine in list(Flavour):
            return []
    except BundleError:
        return []
    found = [
        f"  --quantization {scheme}: compute capability {', '.join(gpus)}"
        for scheme, gpus in _schemes().items()
    ]
    return ["", "GPUs that gain from a quantization (python -m export.all)", *found]


def _schemes() -> dict[str, tuple[str, ...]]:
    """Of the published models: the GPUs that gain, by quantization scheme."""
    models = [model for family in family_names() for model in counted(family)]
    return {model.scheme: model.gains for model in models}


def _gpu(settings: Settings) -> Iterator[Check]:
    try:
        device = Device(settings.device)
    except BundleError:
        return  # nothing here needs one; a bundle that does says so itself
    schemes = [name for name, gpus in _schemes().items() if device.compute_capability in gpus]
    gain = f"gains from --quantization {' or '.join(schemes)}" if schemes else "draws in bf16"
    yield Check("gpu", True, f"{device.description}: {gain}")


def _planned(plan: Callable[..., Residency], *arguments: object) -> Residency | str:
    try:
        return plan(*arguments)
    except BundleError as error:
        return str(error)


def _free_gpu_memory(settings: Settings) -> int:
    try:
        return Device(settings.device).free_bytes()
    except BundleError:
        return 0


def verified(settings: Settings) -> Iterator[Check]:
    """Compare every graph of the bundle with its golden tensors, one check each."""
    from castmate.engines.proof import REPAIR, differences  # loads NumPy
    from castmate.pipeline.opening import open_bundle, runtime_of

    try:
        bundle = open_bundle(settings)
        runtime = runtime_of(bundle, settings, prove=False)
        for graph, outputs in differences(bundle, runtime):
            if not outputs:
                yield Check(graph, False, "has no golden tensors", "Export the bundle again.")
                continue
            worst = max(outputs, key=lambda each: each.relative_l2 / each.allowed)
            yield Check(graph, worst.is_allowed, str(worst), REPAIR[runtime.name])
    except (BundleError, Unavailable) as error:
        yield Check("verify", False, settings.bundle, str(error))


async def _examined(client: registry.Entry, settings: Settings) -> Sequence[Check]:
    return await client.check(settings)


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
    from castmate.jobs.secret import SECRET, read_secret

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
    missing = [str(root) for root in settings.image_roots if not os.path.isdir(root)]
    found = ", ".join(map(str, settings.image_roots)) or "none: agents can name URLs, not paths"
    fix = f"Not a folder: {', '.join(missing)}. Change CASTMATE_IMAGE_ROOTS."
    return Check("image_roots", not missing, found, fix)


def _clients(asked: Sequence[registry.Entry], absent: Mapping[str, str]) -> Check:
    names = [client.name for client in asked]
    lacking = "; ".join(f"{name} ({why})" for name, why in absent.items())
    found = " then ".join(names) or "none"
    fix = f"Set up one of them: {lacking}. Or change CASTMATE_CLIENTS."
    return Check(
        "clients", bool(names), f"{found}; not set up: {lacking}" if lacking else found, fix
    )


async def _ledger(settings: Settings) -> Check:
    from castmate.jobs.opening import database_url, open_database  # loads SQLAlchemy

    # The URL may hold a password.
    own = settings.database_url is None
    shown = f"SQLite in {settings.data_dir}" if own else "the one in CASTMATE_DATABASE_URL"
    try:
        url = database_url(settings)
        database = await open_database(url, pooled=settings.database_pooler)
    except (SettingsError, Unavailable) as error:
        return Check("ledger", False, shown, str(error))
    await database.aclose()
    return Check("ledger", True, shown)
