"""Style LoRAs fused into the transformer before it is quantized; removing one leaves no trace.

Fused means `W + scale * B @ A`, computed in fp32 from the pristine weight. The pristine tensors are
kept, not subtracted back: so removal is exact, and several styles never pile up rounding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from export.errors import ExportError, listed

PREFIX = "transformer."


@dataclass(frozen=True)
class Style:
    """One LoRA file in diffusers' format and how strongly it applies."""

    path: Path
    scale: float = 1.0


class StyledTransformer:
    """A transformer whose styles can be changed; knows only linear layers by name."""

    def __init__(self, transformer: nn.Module) -> None:
        self._layers = {
            name: layer
            for name, layer in transformer.named_modules()
            if isinstance(layer, nn.Linear)
        }
        self._pristine: dict[str, Tensor] = {}

    def apply(self, styles: Sequence[Style]) -> None:
        """Replace whatever styles are fused by these; none leaves the pristine weights.

        Raises:
            ExportError: A file does not fit; the weights are then as they were before.
        """
        changes: dict[str, Tensor] = {}
        for style in styles:
            for name, (down, up, factor) in _read(style, self._layers).items():
                delta = style.scale * factor * (up.float() @ down.float())
                changes[name] = changes[name] + delta if name in changes else delta
        self.remove()
        for name, delta in changes.items():
            weight = self._layers[name].weight
            self._pristine[name] = weight.data
            weight.data = (weight.data.float() + delta.to(weight.device)).to(weight.dtype)

    def remove(self) -> None:
        """Put the pristine weights back."""
        for name, weight in self._pristine.items():
            self._layers[name].weight.data = weight
        self._pristine.clear()


def _read(style: Style, layers: Mapping[str, nn.Linear]) -> dict[str, tuple[Tensor, Tensor, float]]:
    """`A`, `B` and `alpha / rank` of each layer in a file."""
    try:
        state = load_file(style.path)
    except (OSError, SafetensorError) as error:
        raise ExportError(f"{style.path} cannot be read as a LoRA: {error}") from None
    found: dict[str, tuple[Tensor, Tensor, float]] = {}
    used, problems = set(), []
    for key in state:
        if not (key.startswith(PREFIX) and key.endswith(".lora_A.weight")):
            continue
        stem = key.removesuffix(".lora_A.weight")
        name, up_key, alpha_key = (
            stem.removeprefix(PREFIX),
            f"{stem}.lora_B.weight",
            f"{stem}.alpha",
        )
        used |= {key, up_key, alpha_key}
        if name not in layers:
            problems.append(f"{stem}: the transformer has no such layer")
        elif up_key not in state:
            problems.append(f"{up_key}: missing")
        else:
            down, up = state[key], state[up_key]
            shape, fused = tuple(layers[name].weight.shape), (up.shape[0], down.shape[1])
            if up.shape[1] != down.shape[0] or fused != shape:
                problems.append(
                    f"{stem}: {tuple(up.shape)} x {tuple(down.shape)}, the layer is {shape}"
                )
            alpha = state[alpha_key].item() if alpha_key in state else down.shape[0]
            found[name] = (down, up, alpha / down.shape[0])
    problems += [f"{key}: unknown" for key in state if key not in used]
    if problems or not found:
        shown = listed(problems or ["no key like transformer.<layer>.lora_A.weight"])
        raise ExportError(
            f"{style.path} does not fit; a LoRA for FLUX's transformer in diffusers' format does:"
            f"\n  {shown}"
        )
    return found
