"""What the build steps know of InstantCharacter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from castmate.defaults import Defaults
from export.families.instantcharacter import load, trajectory
from export.families.instantcharacter.config import FLUX, ModelConfig
from export.families.instantcharacter.downloads import downloads
from export.families.instantcharacter.graphs import sizes
from export.families.instantcharacter.licences import licences
from export.families.instantcharacter.lora_layers import lora_layers
from export.families.instantcharacter.merges import merges
from export.families.instantcharacter.modulation import LAYERS
from export.families.instantcharacter.network import InstantCharacter
from export.families.instantcharacter.shallow import DEPTH, shallow
from export.families.instantcharacter.step_caching import FLUX_STEP_CACHING, bundle_graphs
from export.families.instantcharacter.style_layers import style_layers
from export.families.instantcharacter.unquantized import ENCODERS, SENSITIVE, UNQUANTIZED
from export.family import ExportFamily, Published

DESCRIPTION = "FLUX.1-dev with InstantCharacter. FLUX.1-dev is for non-commercial use."

DEFAULTS = Defaults(
    num_inference_steps=28, guidance_scale=3.5, subject_scale=0.8, true_cfg_scale=4.0
)


def constants(network: InstantCharacter) -> dict[str, Any]:
    """See `castmate.families.instantcharacter.constants`."""
    config = network.config
    square = config.rope_square
    return {
        "scheduler": dict(config.scheduler),
        "pixels_per_token": config.pixels_per_token,
        "latent_channels": config.transformer["in_channels"],
        "rope_axes_dim": list(config.transformer["axes_dims_rope"]),
        **({} if square is None else {"rope_square": square.model_dump()}),
        "crop_px": config.projector.crop_px,
        "safety_px": config.safety_checker["image_size"],
        "reference_margins": list(config.reference_margins),
    }


def dims(config: ModelConfig, side: int) -> dict[str, int]:
    """See `ExportFamily`."""
    cells = side // config.pixels_per_token
    return {
        **sizes(config),
        **dict.fromkeys(("B", "G", "T", "U", "k"), 1),
        **dict.fromkeys(("h", "w"), cells),
        "L": config.max_sequence_length,
    }


FAMILY = ExportFamily(
    bundle_graphs=lambda network, parts: bundle_graphs(network, step_caching=parts),
    constants=constants,
    dims=dims,
    unquantized=UNQUANTIZED,
    sensitive=SENSITIVE,
    encoders=ENCODERS,
    hoisted=LAYERS,
    merges=merges,
    lora_layers=lora_layers,
    style_layers=style_layers,
    denoise=trajectory.denoise,
    decode=trajectory.decode,
    defaults=DEFAULTS,
    published=Published(
        config=FLUX,
        description=DESCRIPTION,
        licences=licences,
        sources=load.Sources,
        new_network=InstantCharacter,
        load_network=load.load_network,
        load_tokenizers=load.load_tokenizers,
        downloads=downloads,
        step_caching=FLUX_STEP_CACHING,
        shallow=shallow,
        depth=DEPTH,
        calibration=Path(__file__).with_name("calibration.json"),
    ),
)
