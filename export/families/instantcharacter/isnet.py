"""IS-Net, a published network that finds what a picture shows (Qin et al., ECCV 2022).

The reference framing of InstantCharacter's demo uses BiRefNet, whose deformable convolutions
TensorRT's ONNX parser does not take and whose code transformers would have to download and run.
IS-Net is plain convolutions. Its batch normalisations are folded into them when it is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from export.errors import ExportError, listed
from export.families.instantcharacter.matte import Matte
from export.state_dict import differences

_BN_EPS = 1e-5


class ResidualU(nn.Module):
    """A small U-Net in a residual block (RSU); children have their published names."""

    def __init__(self, channels: int, middle: int, out: int, depth: int, *, dilated: bool) -> None:
        """Make the levels.

        Args:
            channels: That come in.
            middle: Of the levels.
            out: That come out.
            depth: Number of levels.
            dilated: Levels see farther instead of being half as fine each.
        """
        super().__init__()
        self.depth, self.dilated = depth, dilated
        self.rebnconvin = _convolution(channels, out)
        for level in range(1, depth + 1):
            far = 2 ** (level - 1) if dilated else 1 + (level == depth)
            down = _convolution(out if level == 1 else middle, middle, far)
            self.add_module(f"rebnconv{level}", down)
        for level in range(depth - 1, 0, -1):
            far = 2 ** (level - 1) if dilated else 1
            up = _convolution(2 * middle, out if level == 1 else middle, far)
            self.add_module(f"rebnconv{level}d", up)

    def forward(self, x: Tensor) -> Tensor:
        before = y = self._run("in", x)
        levels = []
        for level in range(1, self.depth + 1):
            y = self._run(str(level), y)
            levels.append(y)
            if not self.dilated and level < self.depth - 1:
                y = _half(y)
        y = levels.pop()
        for level in range(self.depth - 1, 0, -1):
            beside = levels.pop()
            if not self.dilated and level < self.depth - 1:
                y = _as_large_as(y, beside)
            y = self._run(f"{level}d", torch.cat((y, beside), 1))
        return y + before

    def _run(self, level: str, x: Tensor) -> Tensor:
        return F.relu(self.get_submodule(f"rebnconv{level}")(x))


class IsNet(Matte):
    """Pixels `[B, 3, m, m]` to logits of the foreground `[B, 1, m, m]`."""

    mean_std = ((0.5, 0.5, 0.5), (1.0, 1.0, 1.0))

    def __init__(self) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(3, 64, 3, stride=2, padding=1)
        self.stage1 = ResidualU(64, 32, 64, 7, dilated=False)
        self.stage2 = ResidualU(64, 32, 128, 6, dilated=False)
        self.stage3 = ResidualU(128, 64, 256, 5, dilated=False)
        self.stage4 = ResidualU(256, 128, 512, 4, dilated=False)
        self.stage5 = ResidualU(512, 256, 512, 4, dilated=True)
        self.stage6 = ResidualU(512, 256, 512, 4, dilated=True)
        self.stage5d = ResidualU(1024, 256, 512, 4, dilated=True)
        self.stage4d = ResidualU(1024, 128, 256, 4, dilated=False)
        self.stage3d = ResidualU(512, 64, 128, 5, dilated=False)
        self.stage2d = ResidualU(256, 32, 64, 6, dilated=False)
        self.stage1d = ResidualU(128, 16, 64, 7, dilated=False)
        self.side1 = nn.Conv2d(64, 1, 3, padding=1)

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.conv_in(pixels)
        levels = []
        for number in range(1, 7):
            x = self.get_submodule(f"stage{number}")(x)
            levels.append(x)
            if number < 6:
                x = _half(x)
        x = levels.pop()
        for number in range(5, 0, -1):
            beside = levels.pop()
            x = torch.cat((_as_large_as(x, beside), beside), 1)
            x = self.get_submodule(f"stage{number}d")(x)
        return _as_large_as(self.side1(x), pixels)


def load_isnet(path: Path) -> IsNet:
    """Read a published file, such as `isnet-general-use.pth`.

    Args:
        path: As saved by `torch.save`; only tensors are read from it.

    Raises:
        ExportError: It is no such file, or names every missing, unknown and misshapen key.
    """
    try:
        published = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, UnpicklingError, EOFError) as error:
        raise ExportError(f"{path} cannot be read as weights: {error}") from error
    if not isinstance(published, dict):
        raise ExportError(f"{path} holds {type(published).__name__}, not weights by name.")
    network = IsNet()
    state = folded(published)
    if problems := differences(network.state_dict(), state):
        raise ExportError(f"{path} does not fit IS-Net:\n  {listed(problems)}")
    network.load_state_dict(state)
    return network.eval()


def folded(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The published weights with each normalisation in the convolution before it.

    The outputs beside the first one, which only training uses, are left out.
    """
    state = {}
    for key, weight in published.items():
        name, _, kind = key.partition(".conv_s1.")
        if not kind:
            if not key.startswith(("side2.", "side3.", "side4.", "side5.", "side6.")):
                state[key] = weight
            continue
        norm = f"{name}.bn_s1."
        if norm + "running_var" not in published:
            state[key] = weight
            continue
        scale = published[norm + "weight"] * (published[norm + "running_var"] + _BN_EPS).rsqrt()
        if kind == "weight":
            state[f"{name}.weight"] = weight * scale.view(-1, 1, 1, 1)
        else:
            shift = published[norm + "bias"] - published[norm + "running_mean"] * scale
            state[f"{name}.bias"] = weight * scale + shift
    return {key: weight for key, weight in state.items() if ".bn_s1." not in key}


def _convolution(channels: int, out: int, dilation: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels, out, 3, padding=dilation, dilation=dilation)


def _half(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 2, stride=2, ceil_mode=True)


def _as_large_as(x: Tensor, other: Tensor) -> Tensor:
    return F.interpolate(x, size=other.shape[2:], mode="bilinear", align_corners=False)
