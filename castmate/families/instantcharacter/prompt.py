"""Prompts to embeddings: both tokenizers, both text encoders, and a cache."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from castmate.engines.base import Runtime, Tensor
from castmate.engines.bundle import Bundle
from castmate.pipeline.cache import SizedCache
from castmate.pipeline.tokenizer import PromptTokenizer


@dataclass(frozen=True)
class EncodedPrompt:
    """A prompt on the device, one row, or two with the negative prompt first.

    Attributes:
        texts: What was encoded.
        prompt_embeds: `[G, L, joint_attention_dim]`.
        pooled_projections: `[G, pooled_projection_dim]`.
        warnings: What the encoders could not read.
    """

    texts: tuple[str, ...]
    prompt_embeds: Tensor
    pooled_projections: Tensor
    warnings: tuple[str, ...]


class PromptEncoder:
    """Encodes prompts and caches the most recent ones."""

    def __init__(self, bundle: Bundle, runtime: Runtime, cache: SizedCache[Any]) -> None:
        """Load both encoders.

        Args:
            bundle: Has the encoders and tokenizers.
            runtime: Runs the encoders.
            cache: Keeps encoded prompts, among other things.
        """
        self._runtime, self._cache = runtime, cache
        self._text_encoder = runtime.load("text_encoder")
        self._text_encoder_2 = runtime.load("text_encoder_2")
        self._tokenizer = PromptTokenizer.of(bundle, "tokenizer")
        self._tokenizer_2 = PromptTokenizer.of(bundle, "tokenizer_2")

    @property
    def num_tokens(self) -> int:
        """L: text tokens that the transformer sees."""
        return self._tokenizer_2.max_length

    def encode(self, prompt: str, negative_prompt: str) -> EncodedPrompt:
        """Encode a prompt; an empty negative prompt costs nothing."""
        texts = [negative_prompt, prompt] if negative_prompt else [prompt]
        encoded: EncodedPrompt = self._cache.get_or_make(tuple(texts), lambda: self._encode(texts))
        return encoded

    def _encode(self, texts: list[str]) -> tuple[EncodedPrompt, int]:
        runtime = self._runtime
        pooled = self._text_encoder(input_ids=runtime.upload(self._tokenizer.ids(texts)))
        embeds = self._text_encoder_2(input_ids=runtime.upload(self._tokenizer_2.ids(texts)))
        encoded = EncodedPrompt(
            tuple(texts),
            embeds["prompt_embeds"],
            pooled["pooled_projections"],
            tuple(note for text in texts for note in self._tokenizer_2.unread(text)),
        )
        tensors = (encoded.prompt_embeds, encoded.pooled_projections)
        return encoded, sum(map(runtime.num_bytes, tensors))
