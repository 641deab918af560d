"""Runs plans of either TensorRT flavour on an NVIDIA GPU.

Everything runs on one stream: a call queues work and returns handles, and only `download` waits.
Addresses and shapes are bound when they change; in the denoise loop only `latents` and `step` do.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from castmate.engines.base import Array, Engine, Tensor
from castmate.engines.bundle import Bundle
from castmate.engines.cuda import Device, DeviceTensor
from castmate.engines.digests import sha256_of
from castmate.engines.footprint import plan_bundle
from castmate.engines.library import Library
from castmate.engines.parking import Parking
from castmate.engines.plan import BUILD_AGAIN, Flavour, PlanManifest, ShapeRange
from castmate.engines.plan_file import PlanFile
from castmate.engines.residency import WHOLE_GPU, Share
from castmate.errors import BundleMismatch

logger = logging.getLogger(__name__)


class TensorRTEngine:
    """One execution context; its tensors are `DeviceTensor`s, passed on without a copy."""

    def __init__(self, plan: PlanFile, parking: Parking, device: Device) -> None:
        """Prepare to run.

        Args:
            plan: The engine on disk and on the device.
            parking: Decides when it is on the device.
            device: Where it runs.
        """
        self._plan, self._parking, self._device = plan, parking, device
        self._name, self._profiles = plan.manifest.graph, plan.manifest.profiles
        self._profile = 0
        self._seen: set[tuple[tuple[int, ...], ...]] = set()
        # Holding the bound tensors keeps their memory from being freed and reused at the same
        # address.
        self._bound: dict[str, DeviceTensor] = {}
        self._workspace = (0, 0)

    def __call__(self, **inputs: Tensor) -> Mapping[str, Tensor]:
        """Queue one run.

        Raises:
            BundleMismatch: A shape lies outside every profile.
            Unavailable: The GPU has too little memory left.
        """
        self._parking.enter(self)
        context = self._plan.context
        changed = {n: t for n, t in inputs.items() if self._bound.get(n) is not t}
        shapes = {n: t.shape for n, t in inputs.items()}
        if any(n not in self._bound or self._bound[n].shape != t.shape for n, t in changed.items()):
            self._choose_profile(shapes)
            for name, shape in shapes.items():
                context.set_input_shape(name, shape)
        for name, tensor in changed.items():
            context.set_tensor_address(name, tensor.pointer)
        self._bound = dict(inputs)
        outputs = {}
        for name, dtype in self._plan.outputs.items():
            shape = tuple(context.get_tensor_shape(name))
            outputs[name] = self._device.allocate(shape, dtype)
            context.set_tensor_address(name, outputs[name].pointer)
        if not context.execute_async_v3(self._device.stream):
            raise self._plan.problem(f"run graph {self._name!r}")
        if tuple(shapes.values()) not in self._seen:
            self._seen.add(tuple(shapes.values()))
            self._plan.save_kernels()
        return outputs

    @property
    def graph(self) -> str:
        """See `castmate.engines.parking.Parkable`."""
        return self._name

    @property
    def is_here(self) -> bool:
        """See `castmate.engines.parking.Parkable`."""
        return self._plan.is_here

    @property
    def activation_bytes(self) -> int:
        """See `castmate.engines.parking.Parkable`."""
        return self._plan.activation_bytes

    def bring(self) -> None:
        """See `castmate.engines.parking.Parkable`."""
        before = self._plan.context
        self._plan.bring()
        if self._plan.context is not before:
            self._profile = 0

    def leave(self) -> None:
        """See `castmate.engines.parking.Parkable`."""
        self._bound, self._workspace = {}, (0, 0)
        self._plan.leave()

    def work_in(self, block: DeviceTensor) -> None:
        """See `castmate.engines.parking.Parkable`."""
        # Not the block itself: an idle engine must not keep it alive after it is replaced.
        if (block.pointer, block.num_bytes) != self._workspace:
            self._workspace = (block.pointer, block.num_bytes)
            self._plan.context.set_device_memory(*self._workspace)

    def _choose_profile(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        chosen = choose_profile(self._name, self._profiles, shapes)
        if chosen != self._profile:
            self._plan.context.set_optimization_profile_async(chosen, self._device.stream)
            self._profile = chosen


class TensorRTRuntime:
    """Loads a bundle's plans."""

    def __init__(
        self,
        bundle: Bundle,
        *,
        share: Share = WHOLE_GPU,
        kernels: Path | None = None,
    ) -> None:
        """Plan what will be where, without loading anything.

        Args:
            bundle: Has the plans.
            share: How much of which GPU may be taken.
            kernels: A folder for compiled kernels; without it they are compiled every time.

        Raises:
            BundleMismatch: The bundle is for another engine or GPU, or needs more memory; or a
                package is not installed.
        """
        engines = [flavour.value for flavour in Flavour]
        if bundle.manifest.engine not in engines:
            raise BundleMismatch(
                f"Bundle {bundle.name!r} is for engine {bundle.manifest.engine!r}, not "
                f"{' or '.join(engines)}. {BUILD_AGAIN}"
            )
        self.bundle = bundle
        self._library = Library(Flavour(bundle.manifest.engine), bundle.name, kernels)
        self._device = Device(share.device)
        most = (share.memory or self._device.total_bytes) // share.instances
        memory = min(most, self._device.free_bytes())
        self.residency = plan_bundle(bundle, memory, share.caches)
        logger.info("GPU %d memory: %s", share.device, self.residency.summary())
        self._parking = Parking(self._device, self.residency)

    @property
    def name(self) -> str:
        """The flavour, as the bundle names it."""
        return self._library.flavour.value

    @property
    def machine(self) -> str:
        """Versions of TensorRT and of the driver, and the GPU."""
        return f"{self.name} {self._library.version} on {self._device.description}"

    def load(self, graph: str) -> Engine:
        """Load one plan, or prepare to load it if it will not stay.

        Raises:
            BundleCorrupt: It is half-written or not the one in the manifest.
            BundleMismatch: It was built for another TensorRT or GPU, or does not load.
            Unavailable: The GPU has too little memory left.
        """
        path = self.bundle.file(self.bundle.manifest.graphs[graph].files[0])
        manifest = check_plan(
            path,
            flavour=self._library.flavour,
            tensorrt_version=self._library.version,
            compute_capability=self._device.compute_capability,
            digest=self.bundle.digests.of,
        )
        plan = PlanFile(
            path,
            manifest,
            self._library,
            self._device,
            weights=self.residency.weights[graph],
            stays=graph in self.residency.resident,
        )
        engine = TensorRTEngine(plan, self._parking, self._device)
        self._parking.add(engine)
        return engine

    def upload(self, array: Array, dtype: str | None = None) -> Tensor:
        """Copy a host array to the device."""
        return self._device.upload(array, dtype)

    def download(self, tensor: Tensor) -> Array:
        """Wait for a tensor and copy it to the host."""
        return self._device.download(tensor)

    def concatenate(self, tensors: Sequence[Tensor]) -> Tensor:
        """Join tensors along their first axis, on the device."""
        return self._device.concatenate(list(tensors))

    def num_bytes(self, tensor: Tensor) -> int:
        """Device memory of a tensor."""
        size: int = tensor.num_bytes
        return size


def check_plan(
    path: Path,
    *,
    flavour: Flavour,
    tensorrt_version: str,
    compute_capability: str,
    digest: Callable[[Path], str] = sha256_of,
) -> PlanManifest:
    """The manifest of a plan that fits this machine.

    Args:
        path: The plan.
        flavour: The runtime's.
        tensorrt_version: The runtime's.
        compute_capability: The GPU's.
        digest: Computes the SHA-256 of a file.

    Raises:
        BundleCorrupt: The plan is incomplete or damaged.
        BundleMismatch: It was built for something else; names every difference.
    """
    manifest = PlanManifest.beside(path, digest)
    reasons = manifest.differences(
        flavour=flavour,
        tensorrt_version=tensorrt_version,
        compute_capability=compute_capability,
    )
    if reasons:
        raise BundleMismatch(f"{path} does not fit: {'; '.join(reasons)}. {BUILD_AGAIN}")
    return manifest


def choose_profile(
    graph: str,
    profiles: Sequence[Mapping[str, ShapeRange]],
    shapes: Mapping[str, tuple[int, ...]],
) -> int:
    """The first profile that allows the shapes.

    Raises:
        BundleMismatch: None does; names the input, its shape and what is allowed.
    """
    for number, profile in enumerate(profiles):
        if all(profile[name].allows(shape) for name, shape in shapes.items()):
            return number
    name, shape = next(
        (name, shape)
        for name, shape in shapes.items()
        if not any(profile[name].allows(shape) for profile in profiles) or len(profiles) > 1
    )
    allowed = " or ".join(
        f"{list(profile[name].min)} to {list(profile[name].max)}" for profile in profiles
    )
    raise BundleMismatch(
        f"Graph {graph!r} was built for `{name}` of {allowed}, not {list(shape)}. "
        "Build it for this size: python -m export.build."
    )
