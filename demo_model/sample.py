"""Shows the progress of a training: `python -m demo_model.sample --out sheet.png`.

It draws with torch from the newest checkpoints, without a bundle: each reference in a few prompts.
"""

from __future__ import annotations

import argparse
from itertools import pairwise
from pathlib import Path

import torch
from PIL import Image
from tokenizers import Tokenizer

from castmate.families.instantcharacter.constants import SchedulerSpec
from castmate.families.instantcharacter.schedule import flow_match_sigmas
from demo_model.assembly import assemble
from demo_model.config import TOON
from demo_model.draw import draw_reference
from demo_model.flow import PX_PER_TOKEN, SUBJECT_SCALE, rotary
from demo_model.prompts import free_prompts
from demo_model.references import REFERENCES
from demo_model.subjects import crops
from demo_model.tokens import build_tokenizer, encode
from demo_model.training import CACHE
from export.families.instantcharacter.network import InstantCharacter, unpack_latents


@torch.no_grad()
def sample(
    network: InstantCharacter,
    tokenizer: Tokenizer,
    reference: Image.Image,
    prompt: str,
    *,
    width: int = 512,
    height: int = 512,
    steps: int = 20,
    guidance: float = 3.5,
    seed: int = 0,
) -> Image.Image:
    """One picture, drawn in torch."""
    rows, columns = height // PX_PER_TOKEN, width // PX_PER_TOKEN
    ids = encode(tokenizer, [prompt])
    embeds, pooled = network.prompt_embeds(ids), network.pooled_projections(ids)
    features = network.subject_features(crops(reference)[None])
    spec = SchedulerSpec(**TOON.scheduler)
    sigmas = torch.from_numpy(flow_match_sigmas(steps, rows * columns, spec))
    noise = torch.Generator().manual_seed(seed)
    x = torch.randn(1, rows * columns, TOON.transformer["in_channels"], generator=noise)
    tables, scale = rotary(rows, columns), torch.full((1, 1, 1), SUBJECT_SCALE)
    for sigma, following in pairwise(sigmas):
        level = sigma.view(1)
        modulation = network.modulation(pooled, torch.full((1,), guidance), level * 1000)
        subject = network.subject_resampler(features, level * 1000)
        velocity = network.denoiser(x, embeds, modulation, *tables, subject, scale)
        x = x + (following - sigma) * velocity
    vae = network.vae
    latents = unpack_latents(x.unflatten(1, (rows, columns))) / vae.config["scaling_factor"]
    pixels = vae.decoder(latents + vae.config["shift_factor"])[0].clamp(-1, 1)
    return Image.fromarray(((pixels + 1) * 127.5).byte().permute(1, 2, 0).numpy())


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m demo_model.sample", description=__doc__)
    parser.add_argument("--folder", type=Path, default=CACHE, help="of the training")
    parser.add_argument("--out", type=Path, default=CACHE / "samples.png", help="PNG")
    parser.add_argument("--prompts", type=int, default=5, help="free prompts for each reference")
    parser.add_argument("--size", default="512*512", help="width*height")
    given = parser.parse_args()
    torch.set_num_threads(1)
    network, tokenizer = assemble(given.folder), build_tokenizer()
    width, height = (int(side) for side in given.size.split("*"))
    sheet = Image.new("RGB", ((1 + given.prompts) * width, len(REFERENCES) * height), "white")
    for y, spec in enumerate(REFERENCES.values()):
        reference = draw_reference(spec, 512)
        sheet.paste(reference.resize((height, height)), (0, y * height))
        for x, prompt in enumerate(free_prompts()[: given.prompts]):
            image = sample(network, tokenizer, reference, prompt, width=width, height=height)
            sheet.paste(image, ((1 + x) * width, y * height))
    sheet.save(given.out)


if __name__ == "__main__":
    main()
