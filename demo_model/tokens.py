"""The word-level tokenizer of both text encoders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor

from demo_model.captions import vocabulary
from demo_model.config import BOS, EOS, MAX_SEQUENCE_LENGTH, PAD, UNK, VOCABULARY_SIZE

SPECIAL = {"[PAD]": PAD, "[BOS]": BOS, "[UNK]": UNK, "[EOS]": EOS}


def build_tokenizer() -> Tokenizer:
    """Lower-case words and punctuation; `encode` adds the start and end tokens."""
    words = {**SPECIAL}
    for word in vocabulary():
        words.setdefault(word, len(words))
    if len(words) > VOCABULARY_SIZE:
        raise ValueError(f"{len(words)} words do not fit a vocabulary of {VOCABULARY_SIZE}")
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.NFKD(),
            normalizers.StripAccents(),
            normalizers.Lowercase(),
            normalizers.Replace(Regex(r"[^\w\s.,!]"), " "),  # punctuation only uses up tokens
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[BOS] $A [EOS]", special_tokens=[("[BOS]", BOS), ("[EOS]", EOS)]
    )
    tokenizer.enable_truncation(MAX_SEQUENCE_LENGTH)
    tokenizer.enable_padding(length=MAX_SEQUENCE_LENGTH, pad_id=PAD, pad_token="[PAD]")
    return tokenizer


def encode(tokenizer: Tokenizer, texts: Sequence[str]) -> Tensor:
    """Texts to padded ids `[B, MAX_SEQUENCE_LENGTH]`."""
    return torch.tensor([encoding.ids for encoding in tokenizer.encode_batch(list(texts))])


def save_tokenizer(path: Path) -> None:
    """Writes `tokenizer.json` without padding or truncation: the pipeline sets the length."""
    tokenizer = build_tokenizer()
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tokenizer.save(str(path))
