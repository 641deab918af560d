"""A LoRA file to the low-rank changes that it holds, whatever program wrote it.

The layouts differ in three things: how the two factors are called (`lora_A`, `lora_down`, `down`,
...), where alpha stands (a key, PEFT's configuration in the header or beside the file, nowhere),
and how layers are named. The first two are read here; layers are the family's business.

diffusers' own converters are not used: they assume the widths of FLUX.1-dev, drop alphas of the
final layer and whatever they do not know without an error, and leave `lora_A` under BFL's names
as it is. The tests compare the names with theirs.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from safetensors import SafetensorError, safe_open
from torch import Tensor

from export.errors import ExportError

METADATA: Final = "lora_adapter_metadata"
PEFT_FILE: Final = "adapter_model.safetensors"
PEFT_CONFIG: Final = "adapter_config.json"

_KINDS: Final = {
    "DoRA": r"dora_scale|lora_magnitude_vector",
    "LoKr": r"lokr_",
    "LoHa": r"hada_",
    "OFT": r"oft_",
    "LoCon with a middle factor": r"lora_mid",
    "biases of the factors": r"\.lora_(A|B|up|down)\.bias$",
    "whole differences of weights": r"\.(diff|diff_b|set_weight)$",
    "normalization layers": r"\.(query_norm|key_norm)\.scale$|\.norm_(added_)?[qk]\.weight$",
}
"""What is more than a product of two factors, by a part of its keys: refused by its name."""


def _half(letter: str, word: str) -> re.Pattern[str]:
    old = rf"(?:lora\.|lora_linear_layer\.)?{word}"
    return re.compile(rf"(.+?)\.(?:lora_{letter}(?:\.default)?|lora_{word}|{old})\.weight")


_KEYS: Final = {
    "down": _half("A", "down"),
    "up": _half("B", "up"),
    "alpha": re.compile(r"(.+)\.alpha"),
}


@dataclass(frozen=True)
class LowRank:
    """The change of one layer, or of several that the file treats as one.

    Attributes:
        name: The layer's name in the file.
        down: `A`, `[rank, in]`.
        up: `B`, `[out, rank]`.
        scaling: What the product is multiplied by: alpha / rank.
    """

    name: str
    down: Tensor
    up: Tensor
    scaling: float


@dataclass(frozen=True)
class LoraFile:
    """What a file holds.

    Attributes:
        changes: Those that are whole.
        problems: Everything else, one sentence each.
    """

    changes: tuple[LowRank, ...]
    problems: tuple[str, ...]


def read(path: Path) -> LoraFile:
    """Read a file without looking at any network.

    Raises:
        ExportError: It is no safetensors file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata: Mapping[str, str] = file.metadata() or {}
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ExportError(
            f"{path} cannot be read as a LoRA: {error}. Take a .safetensors file."
        ) from None
    problems = list(_refused(state))
    found: dict[str, dict[str, Tensor]] = {}
    if not problems:
        for key, tensor in state.items():
            role, name = _role(key)
            if not role:
                problems.append(f"{key}: unknown")
            elif found.setdefault(name, {}).setdefault(role, tensor) is not tensor:
                problems.append(f"{key}: there is another {role} of {name}")
    try:
        configs = _configs(path, metadata)
    except ValueError as error:
        problems.append(str(error))
        configs = []
    changes = []
    for name, parts in found.items():
        try:
            changes.append(_change(name, parts, configs))
        except ValueError as error:
            problems.append(f"{name}: {error}")
    if not changes and not problems:
        problems.append("it holds no tensor")
    return LoraFile(tuple(changes), tuple(problems))


def _refused(state: Mapping[str, Tensor]) -> Iterator[str]:
    for kind, pattern in _KINDS.items():
        if keys := [key for key in state if re.search(pattern, key)]:
            yield f"{kind} cannot be fused: {len(keys)} keys such as {keys[0]}"


def _role(key: str) -> tuple[str, str]:
    """What a key is of which layer; twice nothing for an unknown key."""
    for role, pattern in _KEYS.items():
        if match := pattern.fullmatch(key):
            return role, match[1]
    return "", ""


def _change(name: str, parts: Mapping[str, Tensor], configs: list[_Config]) -> LowRank:
    missing = [half for half in ("down", "up") if half not in parts]
    if missing:
        raise ValueError(f"its {' and '.join(missing)} factor is missing")
    down, up = parts["down"], parts["up"]
    if down.ndim != 2 or up.ndim != 2 or up.shape[1] != down.shape[0] or not down.numel():
        raise ValueError(f"{tuple(up.shape)} x {tuple(down.shape)} is no product of two factors")
    for half in (down, up):
        if not half.is_floating_point() or not half.float().isfinite().all():
            raise ValueError("its factors are not all finite numbers")
    rank = down.shape[0]
    config = next((config for config in configs if config.holds(name)), None)
    alphas = {
        "its key": _number(parts["alpha"]) if "alpha" in parts else None,
        "the metadata": config.alpha(name) if config else None,
    }
    given = {where: alpha for where, alpha in alphas.items() if alpha is not None}
    if len(set(given.values())) > 1:
        both = " and ".join(f"{alpha:g} in {where}" for where, alpha in given.items())
        raise ValueError(f"alpha is {both}")
    alpha = next(iter(given.values()), float(rank))
    return LowRank(name, down, up, alpha / (math.sqrt(rank) if config and config.rslora else rank))


def _number(alpha: Tensor) -> float:
    if alpha.numel() != 1 or not alpha.is_floating_point():
        raise ValueError(f"alpha is {str(alpha.dtype)[6:]} {tuple(alpha.shape)}, not one number")
    return _positive(alpha.item())


def _positive(alpha: object) -> float:
    if isinstance(alpha, bool) or not isinstance(alpha, int | float):
        raise ValueError(f"alpha is {alpha!r}, not a number")
    if not (math.isfinite(alpha) and alpha > 0):
        raise ValueError(f"alpha is {alpha}; a finite number above 0 is allowed")
    return float(alpha)


@dataclass(frozen=True)
class _Config:
    """PEFT's configuration of one component.

    Attributes:
        component: What its layers' names begin with; empty where there is one component.
        lora_alpha: Of every layer that no pattern names.
        alpha_pattern: Of the layers whose names end like a key, a regular expression.
        rslora: Whether alpha is divided by the root of the rank.
    """

    component: str
    lora_alpha: object
    alpha_pattern: Mapping[str, object] = field(default_factory=dict)
    rslora: bool = False

    @classmethod
    def of(cls, component: str, values: Mapping[str, Any]) -> _Config:
        if values.get("use_dora"):
            raise ValueError("DoRA cannot be fused: the metadata says use_dora")
        patterns = values.get("alpha_pattern") or {}
        if not isinstance(patterns, Mapping):
            raise ValueError("the metadata's alpha_pattern is no table of names")
        return cls(component, values.get("lora_alpha"), patterns, values.get("use_rslora") is True)

    def holds(self, name: str) -> bool:
        return not self.component or name.startswith(f"{self.component}.")

    def alpha(self, name: str) -> float | None:
        for pattern, alpha in self.alpha_pattern.items():
            try:
                if re.fullmatch(rf"(?:.*\.)?(?:{pattern.removeprefix('^')})", name):
                    return _positive(alpha)
            except re.error:
                raise ValueError(f"the metadata's pattern {pattern!r} cannot be read") from None
        return None if self.lora_alpha is None else _positive(self.lora_alpha)


def _configs(path: Path, metadata: Mapping[str, str]) -> list[_Config]:
    """PEFT's configurations, from the header of the file or from beside it.

    Raises:
        ValueError: One cannot be understood; how strong the LoRA is, is then unknown.
    """
    try:
        if METADATA in metadata:
            values = json.loads(metadata[METADATA])
        elif path.name == PEFT_FILE:
            values = json.loads((path.parent / PEFT_CONFIG).read_bytes())
        else:
            return []
    except FileNotFoundError:
        raise ValueError(
            f"alpha is unknown: {PEFT_CONFIG} is not beside it; PEFT writes both"
        ) from None
    except ValueError as error:
        raise ValueError(f"PEFT's configuration is no JSON: {error}") from None
    if not isinstance(values, dict):
        raise ValueError("PEFT's configuration is no object")
    components = {key.rpartition(".")[0] for key in values if key.endswith("lora_alpha")}
    return [
        _Config.of(
            component,
            {
                key.rpartition(".")[2]: value
                for key, value in values.items()
                if key.rpartition(".")[0] == component
            },
        )
        for component in sorted(components, reverse=True)
    ]
