"""InstantCharacter's graphs as torch modules; names, shapes and dtypes stand in its table.

Everything between two graphs stays on the device, so whatever a loop would do to a tensor (true-CFG
mix, Euler step, latent packing, normalisation, the 8-bit picture) is inside one of them. Letters in
shapes are those of `castmate.families.instantcharacter.graphs`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from diffusers import AutoencoderKL
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from torch import Tensor, nn
from transformers import CLIPTextModel, T5EncoderModel

from castmate.families.instantcharacter.graphs import IDENTITY, MATTE, TABLE, WHOLE
from export.families.instantcharacter.config import ModelConfig
from export.families.instantcharacter.denoiser import Denoiser
from export.families.instantcharacter.identity import IdentityGraph
from export.families.instantcharacter.image_encoder import CropEncoder
from export.families.instantcharacter.matte import MatteGraph
from export.families.instantcharacter.modulation import ModulationGraph, widths
from export.families.instantcharacter.network import (
    InstantCharacter,
    unpack_latents,
)
from export.families.instantcharacter.projector import ImageFeatures, SubjectProjector
from export.families.instantcharacter.resampler import SubjectResampler
from export.families.instantcharacter.style_layers import (
    MODULATION,
    STEP,
    branches_of,
    inputs_of,
)
from export.graphs import ExportGraph, Makers
from export.lora.branches import NO_BRANCHES, Branches

CLIP_MEAN_STD = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


class TextEncoderGraph(nn.Module):
    """CLIP: token ids to its pooled output."""

    def __init__(self, text_encoder: CLIPTextModel) -> None:
        super().__init__()
        self.text_encoder = text_encoder

    def forward(self, input_ids: Tensor) -> Tensor:
        pooled: Tensor = self.text_encoder(input_ids).pooler_output
        return pooled


class TextEncoder2Graph(nn.Module):
    """T5: token ids to embeddings; padding is not masked, as in FLUX."""

    def __init__(self, text_encoder_2: T5EncoderModel) -> None:
        super().__init__()
        self.text_encoder_2 = text_encoder_2

    def forward(self, input_ids: Tensor) -> Tensor:
        embeds: Tensor = self.text_encoder_2(input_ids).last_hidden_state
        return embeds


class ImageEncoderGraph(nn.Module):
    """SigLIP or DINOv2: crops to the three `ImageFeatures`."""

    def __init__(self, encoder: CropEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features = self.encoder(crops)
        return features.low_res_deep, features.low_res_shallow, features.high_res_deep


class SubjectProjectorGraph(nn.Module):
    """Features of both encoders to the subject's, once per reference."""

    def __init__(self, projector: SubjectProjector) -> None:
        super().__init__()
        self.projector = projector

    def forward(
        self,
        low_res_deep: Tensor,
        low_res_shallow: Tensor,
        high_res_deep: Tensor,
        low_res_deep_2: Tensor,
        low_res_shallow_2: Tensor,
        high_res_deep_2: Tensor,
    ) -> Tensor:
        first = ImageFeatures(low_res_deep, low_res_shallow, high_res_deep)
        second = ImageFeatures(low_res_deep_2, low_res_shallow_2, high_res_deep_2)
        features: Tensor = self.projector(first + second)
        return features


class SubjectResamplerGraph(nn.Module):
    """Features of every picture of a character to its tokens in some steps."""

    def __init__(self, resampler: SubjectResampler) -> None:
        super().__init__()
        self.resampler = resampler

    def forward(self, subject_features: Tensor, timesteps: Tensor) -> Tensor:
        """Attend to the features `[k, 2n, c+d]` of all pictures side by side."""
        tokens: Tensor = self.resampler(subject_features.flatten(0, 1)[None], timesteps)
        return tokens


class TransformerGraph(nn.Module):
    """One denoise step whole: velocity, true-CFG mix, Euler update.

    Everything but `latents` and `step` is bound once for a request. All pictures of a call share
    the prompt and the subject, so keys and values of the subject are computed once.
    """

    def __init__(self, denoiser: Denoiser, branches: Branches = NO_BRANCHES) -> None:
        super().__init__()
        self.denoiser, self.branches = denoiser, branches

    def forward(
        self,
        latents: Tensor,
        step: Tensor,
        sigmas: Tensor,
        true_cfg_scale: Tensor,
        prompt_embeds: Tensor,
        modulation: Tensor,
        subject_embeds: Tensor,
        subject_scale: Tensor,
        rotary_emb_cos: Tensor,
        rotary_emb_sin: Tensor,
        style_factors: Tensor | None = None,
    ) -> Tensor:
        """Step from `sigmas[step]` to `sigmas[step + 1]`.

        `sigmas` end with 0; `modulation` and `subject_embeds` hold those of every step.
        `true_cfg_scale` has no effect without a negative prompt.
        """
        dtype, batch = self.denoiser.dtype, latents.shape[0]
        with self.branches.with_factors(style_factors):
            velocity = self.denoiser(
                image_rows(latents, prompt_embeds.shape[0]).to(dtype),
                text_rows(prompt_embeds, batch),
                text_rows(modulation.index_select(0, step)[0], batch),
                rotary_emb_cos,
                rotary_emb_sin,
                subject_embeds.index_select(0, step),
                subject_scale.to(dtype),
            )
        return euler_step(latents, velocity, step, sigmas, true_cfg_scale)


def image_rows(latents: Tensor, passes: int) -> Tensor:
    """Pictures `[B, h, w, 4C]` to the rows `[P, N, 4C]` of the transformer, pass by pass."""
    tokens = latents.flatten(1, 2)
    return tokens.unsqueeze(0).expand(passes, *tokens.shape).flatten(0, 1)


def text_rows(x: Tensor, batch: int) -> Tensor:
    """What each guidance pass has, `[G, ...]`, to the same rows: all pictures share it."""
    return x.unsqueeze(1).expand(x.shape[0], batch, *x.shape[1:]).flatten(0, 1)


def euler_step(
    latents: Tensor, velocity: Tensor, step: Tensor, sigmas: Tensor, true_cfg_scale: Tensor
) -> Tensor:
    """The true-CFG mix of every pass's velocity, and the step to the next sigma, in fp32."""
    sigma, next_sigma = sigmas.index_select(0, step), sigmas.index_select(0, step + 1)
    velocity = velocity.float().unflatten(0, (-1, latents.shape[0]))
    negative, positive = velocity[0], velocity[-1]
    mixed = negative + true_cfg_scale * (positive - negative)
    return latents + (next_sigma - sigma) * mixed.reshape(latents.shape)


class VaeDecoderGraph(nn.Module):
    """Packed latents to RGB pictures."""

    unread = ("vae.encoder.",)
    """Weights of its module that it does not compute with; see `export.sizes`."""
    scaling_factor: Tensor
    shift_factor: Tensor

    def __init__(self, vae: AutoencoderKL) -> None:
        super().__init__()
        self.vae = vae
        for name in ("scaling_factor", "shift_factor"):  # as tensors they have a name in the graph
            self.register_buffer(name, torch.tensor(vae.config[name]), persistent=False)

    def forward(self, latents: Tensor) -> Tensor:
        z = unpack_latents(latents) / self.scaling_factor + self.shift_factor
        pixels = self.vae.decode(z.to(self.vae.dtype), return_dict=False)[0].float()
        pixels = ((pixels / 2 + 0.5).clamp(0, 1) * 255).round().permute(0, 2, 3, 1)
        return pixels.to(torch.uint8)  # last: TensorRT gives 8-bit tensors out and no more


class SafetyCheckerGraph(nn.Module):
    """RGB pictures to the scores of concepts, and whether any is above 0.

    A score is the cosine to a concept less its threshold; 0.01 more where a special-care concept is
    seen (diffusers' `StableDiffusionSafetyChecker`).
    """

    mean: Tensor
    std: Tensor

    def __init__(self, checker: StableDiffusionSafetyChecker) -> None:
        super().__init__()
        self.checker = checker
        for name, values in zip(("mean", "std"), CLIP_MEAN_STD, strict=True):
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        checker = self.checker
        pixels = (images.float().permute(0, 3, 1, 2) / 255 - self.mean) / self.std
        seen = checker.vision_model(pixels.to(checker.visual_projection.weight.dtype))
        embeds = checker.visual_projection(seen.pooler_output).float()

        def above(concepts: Tensor, thresholds: Tensor) -> Tensor:
            concepts = concepts.float()
            cosines = nn.functional.normalize(embeds) @ concepts.T / concepts.norm(dim=1)
            return cosines - thresholds

        special = above(checker.special_care_embeds, checker.special_care_embeds_weights) > 0
        scores = above(checker.concept_embeds, checker.concept_embeds_weights)
        scores = scores + 0.01 * special.any(1, keepdim=True)
        return scores, (scores > 0).any(1)


def sizes(config: ModelConfig) -> dict[str, int]:
    """The dimensions of the table that a network fixes."""
    transformer, projector = config.transformer, config.projector
    dim = transformer["num_attention_heads"] * transformer["attention_head_dim"]
    return {
        "A": sum(widths(transformer["num_layers"], transformer["num_single_layers"], dim)),
        "C": config.vae["latent_channels"],
        "D": transformer["joint_attention_dim"],
        "E": transformer["pooled_projection_dim"],
        "K": config.text_encoder["max_position_embeddings"],
        "M": dim,
        "R": transformer["attention_head_dim"],
        "Q": config.resampler.num_queries,
        "V": config.resampler.output_dim,
        "c": projector.image_encoder_dim,
        "d": projector.image_encoder_2_dim,
        "n": (projector.crop_px // config.image_encoder["patch_size"]) ** 2,
        "s": projector.crop_px,
        "p": config.pixels_per_token,
        "v": config.safety_checker["image_size"],
        "m": config.matte["image_size"],
        "i": config.identity["image_size"],
        "e": config.identity["embedding_dim"],
    }


def export_graphs(network: InstantCharacter) -> Makers:
    """Every graph but the parts of step caching, by name."""
    image_encoder, image_encoder_2 = network.crop_encoders
    modules: dict[str, Callable[[], nn.Module]] = {
        "text_encoder": lambda: TextEncoderGraph(network.text_encoder),
        "text_encoder_2": lambda: TextEncoder2Graph(network.text_encoder_2),
        "image_encoder": lambda: ImageEncoderGraph(image_encoder),
        "image_encoder_2": lambda: ImageEncoderGraph(image_encoder_2),
        "subject_projector": lambda: SubjectProjectorGraph(network.subject_projector),
        "subject_resampler": lambda: SubjectResamplerGraph(network.subject_resampler),
        "modulation": lambda: ModulationGraph(
            network.modulation, branches_of(network, "modulation")
        ),
        "transformer": lambda: TransformerGraph(network.denoiser, branches_of(network, WHOLE)),
        "vae_decoder": lambda: VaeDecoderGraph(network.vae),
        "safety_checker": lambda: SafetyCheckerGraph(network.safety_checker),
    }
    if (matte := network.matte) is not None:
        modules[MATTE] = lambda: MatteGraph(matte)
    if (identity := network.identity) is not None:
        modules[IDENTITY] = lambda: IdentityGraph(identity)
    return makers(network, modules)


def makers(network: InstantCharacter, modules: Mapping[str, Callable[[], nn.Module]]) -> Makers:
    """Graphs of a network from what makes their modules."""
    fixed, dtype = sizes(network.config), network.denoiser.dtype
    rows = {name: slots[-1].end for name, slots in network.style_slots.items()}
    fixed |= {"F": rows.get(STEP, 0), "Z": rows.get(MODULATION, 0)}

    def maker(name: str) -> Callable[[], ExportGraph]:
        return lambda: ExportGraph.of(
            TABLE, name, modules[name](), fixed, dtype, inputs_of(network, name)
        )

    return {name: maker(name) for name in modules}
