"""Prompts to embeddings: both tokenizers, both text encoders, and a cache."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from castmate.engines.base import Runtime, Tensor
from castmate.engines.bundle import Bundle, TokenizerSpec
from castmate.pipeline.cache import SizedCache


@dataclass(frozen=True)
class EncodedPrompt:
    """A prompt on the device, one row, or two with the negative prompt first.

    Attributes:
        prompt_embeds: `[G, L, joint_attention_dim]`.
        pooled_projections: `[G, pooled_projection_dim]`.
        warnings: What the encoders could not read.
    """

    prompt_embeds: Tensor
    pooled_projections: Tensor
    warnings: tuple[str, ...]


class PromptEncoder:
    """Encodes prompts; the last ones are remembered."""

    def __init__(self, bundle: Bundle, runtime: Runtime, cache_bytes: int) -> None:
        self._runtime = runtime
        self._text_encoder = runtime.load("text_encoder")
        self._text_encoder_2 = runtime.load("text_encoder_2")
        self._tokenizer = PromptTokenizer(bundle, bundle.manifest.text_encoder)
        self._tokenizer_2 = PromptTokenizer(bundle, bundle.manifest.text_encoder_2)
        self._cache = SizedCache[EncodedPrompt](cache_bytes)

    @property
    def num_tokens(self) -> int:
        """L: text tokens that the transformer sees."""
        return self._tokenizer_2.spec.max_length

    def cache_counts(self) -> tuple[int, int]:
        """Hits and misses."""
        return self._cache.hits, self._cache.misses

    def encode(self, prompt: str, negative_prompt: str) -> EncodedPrompt:
        """Encode a prompt; an empty negative prompt costs nothing."""
        texts = [negative_prompt, prompt] if negative_prompt else [prompt]
        return self._cache.get_or_make(tuple(texts), lambda: self._encode(texts))

    def _encode(self, texts: list[str]) -> tuple[EncodedPrompt, int]:
        runtime = self._runtime
        pooled = self._text_encoder(input_ids=runtime.upload(self._tokenizer.ids(texts)))
        embeds = self._text_encoder_2(input_ids=runtime.upload(self._tokenizer_2.ids(texts)))
        encoded = EncodedPrompt(
            embeds["prompt_embeds"],
            pooled["pooled_projections"],
            tuple(note for text in texts for note in self._tokenizer_2.unread(text)),
        )
        tensors = (encoded.prompt_embeds, encoded.pooled_projections)
        return encoded, sum(map(runtime.num_bytes, tensors))


class PromptTokenizer:
    """One encoder's tokenizer, with the length that its graph was trained on."""

    def __init__(self, bundle: Bundle, spec: TokenizerSpec) -> None:
        self.spec = spec
        self._tokenizer = Tokenizer.from_file(str(bundle.file(spec)))
        self._tokenizer.enable_truncation(spec.max_length)
        self._tokenizer.enable_padding(length=spec.max_length, pad_id=spec.pad_id)

    def ids(self, texts: list[str]) -> NDArray[np.int64]:
        """Token ids `[len(texts), max_length]`, cut and padded."""
        return np.array(
            [encoding.ids for encoding in self._tokenizer.encode_batch(texts)], np.int64
        )

    def unread(self, text: str) -> list[str]:
        """Warnings: what was cut off, and words that the model never learned."""
        encoding = self._tokenizer.encode(text)
        notes = []
        if encoding.overflowing:
            start = encoding.overflowing[0].offsets[1][0]
            notes.append(
                f"The model reads {self.spec.max_length} tokens; it did not see "
                f"{text[start : start + 60]!r} and what follows. Shorten the prompt."
            )
        unknown = [
            text[start:end]
            for token, (start, end) in zip(encoding.ids, encoding.offsets, strict=True)
            if token == self.spec.unk_id
        ]
        if unknown:
            words = ", ".join(dict.fromkeys(unknown))
            notes.append(f"The model does not know these words and passes over them: {words}.")
        return notes
