"""From the parameters of `config.pbtxt` to a running service."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, Self

from pydantic import BaseModel, ByteSize, ConfigDict, Field, ValidationError

from castmate.errors import BundleMismatch, SettingsError
from castmate.pipeline.opening import open_bundle, open_pipeline
from castmate.settings import Settings
from castmate.triton.metrics import Metrics
from castmate.triton.service import Service
from castmate.triton.siblings import Siblings

SHARED: Final = (
    "bundle",
    "threads",
    "gpu_memory",
    "prompt_cache_mb",
    "subject_cache_mb",
    "cache",
)
"""Parameters whose default is the setting of the same name."""


@dataclass(frozen=True)
class Instance:
    """One of the model's instances, as Triton places it.

    Attributes:
        name: Such as castmate_0_1.
        device: Number of its GPU; None on a CPU.
        neighbours: Instances on that GPU, itself included.
    """

    name: str = "castmate"
    device: int | None = None
    neighbours: int = 1

    @classmethod
    def of(cls, arguments: Mapping[str, str]) -> Self:
        """Read the arguments that Triton passes to `initialize`."""
        name = arguments["model_instance_name"]
        if arguments.get("model_instance_kind", "CPU") != "GPU":
            return cls(name)
        device = int(arguments["model_instance_device_id"])
        groups = json.loads(arguments["model_config"]).get("instance_group", [])
        neighbours = sum(
            int(group.get("count", 1))
            for group in groups
            if group.get("kind") == "KIND_GPU" and device in group.get("gpus", [device])
        )
        return cls(name, device, max(1, neighbours))


DEFAULT_INSTANCE: Final = Instance()
SILENT_PULSES: Final = 10


class ModelSettings(BaseModel):
    """The parameters of the Triton model.

    An empty or missing parameter takes the CASTMATE_* variable of the same name if it is set, else
    the default.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    bundle: str
    engine: str = "auto"
    threads: int = Field(ge=0, le=1024)
    gpu_memory: ByteSize | None = Field(gt=0)
    prompt_cache_mb: int = Field(ge=0)
    subject_cache_mb: int = Field(ge=0)
    cache: Literal["off", "balanced", "fast"]
    max_waiting: int = Field(default=16, ge=1, le=1000)
    pulse_s: float = Field(default=1.0, gt=0, le=60)

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, str]) -> Self:
        """Validate the parameters of `config.pbtxt`.

        Raises:
            SettingsError: Names each bad parameter and what it may be.
        """
        settings = Settings.load()
        defaults = {name: getattr(settings, name) for name in SHARED}
        given = {name: value.strip() for name, value in parameters.items() if value.strip()}
        try:
            return cls.model_validate(defaults | given)
        except ValidationError as error:
            raise SettingsError(
                "\n".join(
                    _explain(detail["loc"], detail["msg"], detail["input"])
                    for detail in error.errors(include_url=False, include_context=False)
                )
            ) from None


def open_service(
    parameters: Mapping[str, str], metrics: Metrics, instance: Instance = DEFAULT_INSTANCE
) -> Service:
    """Load the bundle and start the service.

    Args:
        parameters: Those of `config.pbtxt`.
        metrics: Counts what the service does.
        instance: This instance of the model.

    Raises:
        SettingsError: A parameter is wrong.
        BundleError: The bundle cannot be used here.
        Unavailable: The GPU has too little memory left.
    """
    given = ModelSettings.from_parameters(parameters)
    settings = Settings.load(**{name: getattr(given, name) for name in SHARED})
    bundle = open_bundle(settings)
    if given.engine not in ("auto", bundle.manifest.engine):
        raise BundleMismatch(
            f"config.pbtxt asks for engine {given.engine!r}; bundle {bundle.name!r} is for "
            f"{bundle.manifest.engine!r}. Set the parameter `engine` to auto, or name a bundle for "
            f"{given.engine!r}."
        )
    pipeline = open_pipeline(
        bundle, settings, device=instance.device, instances=instance.neighbours
    )
    return Service(
        pipeline,
        metrics,
        siblings=Siblings(instance.name, silent_after_s=SILENT_PULSES * given.pulse_s),
        max_waiting=given.max_waiting,
        pulse_s=given.pulse_s,
    )


def _explain(location: tuple[int | str, ...], message: str, given: object) -> str:
    name = ".".join(map(str, location))
    if name not in ModelSettings.model_fields:
        known = ", ".join(ModelSettings.model_fields)
        return f"config.pbtxt: unknown parameter `{name}`; allowed: {known}"
    return f"config.pbtxt: parameter `{name}`: {message}; got {given!r}"
