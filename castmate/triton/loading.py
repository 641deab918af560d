"""From the parameters of `config.pbtxt` to a running service."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from castmate.engines.bundle import Bundle
from castmate.engines.choose import open_runtime
from castmate.errors import BundleMismatch, SettingsError
from castmate.pipeline.pipeline import Pipeline
from castmate.schema import Cache
from castmate.settings import Settings
from castmate.triton.metrics import Metrics
from castmate.triton.service import Service


class ModelSettings(BaseModel):
    """The parameters of the Triton model.

    An empty value, or a parameter that is left out, takes the CASTMATE_* variable of the same name
    where there is one, else the default.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    bundle: str
    engine: str = "auto"
    threads: int = Field(ge=0, le=1024)
    prompt_cache_mb: int = Field(ge=0)
    subject_cache_mb: int = Field(ge=0)
    cache: Literal["off", "balanced", "fast"]
    max_waiting: int = Field(default=16, ge=1, le=1000)
    pulse_s: float = Field(default=1.0, gt=0, le=60)

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, str]) -> Self:
        """Validate what `config.pbtxt` says.

        Raises:
            SettingsError: Names each bad parameter and what it may be.
        """
        settings = Settings.load()
        shared = ("bundle", "threads", "prompt_cache_mb", "subject_cache_mb", "cache")
        defaults = {name: getattr(settings, name) for name in shared}
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


def open_service(parameters: Mapping[str, str], metrics: Metrics) -> Service:
    """Load the bundle and start.

    Raises:
        SettingsError: A parameter is wrong.
        BundleError: The bundle cannot be used here.
    """
    settings = ModelSettings.from_parameters(parameters)
    bundle = Bundle.open(settings.bundle)
    if settings.engine not in ("auto", bundle.manifest.engine):
        raise BundleMismatch(
            f"config.pbtxt asks for engine {settings.engine!r}; bundle {bundle.name!r} is for "
            f"{bundle.manifest.engine!r}. Set the parameter `engine` to auto, or name a bundle for "
            f"{settings.engine!r}."
        )
    pipeline = Pipeline(
        bundle,
        open_runtime(bundle, threads=settings.threads, data_dir=Settings.load().data_dir),
        prompt_cache_mb=settings.prompt_cache_mb,
        subject_cache_mb=settings.subject_cache_mb,
        cache=Cache(settings.cache),
    )
    return Service(pipeline, metrics, max_waiting=settings.max_waiting, pulse_s=settings.pulse_s)


def _explain(location: tuple[int | str, ...], message: str, given: object) -> str:
    name = ".".join(map(str, location))
    if name not in ModelSettings.model_fields:
        known = ", ".join(ModelSettings.model_fields)
        return f"config.pbtxt: unknown parameter `{name}`; allowed: {known}"
    return f"config.pbtxt: parameter `{name}`: {message}; got {given!r}"
