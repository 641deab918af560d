"""Prompts to token ids, cut and padded to the length that an encoder was trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from castmate.engines.bundle import Bundle


class PromptTokenizer:
    """One encoder's tokenizer."""

    def __init__(self, path: Path, max_length: int, pad_id: int, unk_id: int | None = None) -> None:
        """Read it.

        Args:
            path: A `tokenizers` file; its own truncation and padding are ignored.
            max_length: Tokens that the encoder sees.
            pad_id: Pads shorter prompts.
            unk_id: Replaces words that the encoder never learned, if it has such a token.
        """
        self.max_length, self._unk_id = max_length, unk_id
        self._tokenizer = Tokenizer.from_file(str(path))
        self._tokenizer.enable_truncation(max_length)
        self._tokenizer.enable_padding(length=max_length, pad_id=pad_id)

    @classmethod
    def of(cls, bundle: Bundle, name: str) -> Self:
        """A tokenizer of a bundle.

        Raises:
            BundleCorrupt: Its file is not the one in the manifest.
        """
        spec = bundle.manifest.tokenizers[name]
        return cls(bundle.file(spec), spec.max_length, spec.pad_id, spec.unk_id)

    def ids(self, texts: list[str]) -> NDArray[np.int64]:
        """Token ids `[len(texts), max_length]`."""
        return np.array(
            [encoding.ids for encoding in self._tokenizer.encode_batch(texts)], np.int64
        )

    def unread(self, text: str) -> list[str]:
        """Warnings about text that was cut off and words that the model never learned."""
        encoding = self._tokenizer.encode(text)
        notes = []
        if encoding.overflowing:
            start = encoding.overflowing[0].offsets[1][0]
            notes.append(
                f"The model reads {self.max_length} tokens; it did not see "
                f"{text[start : start + 60]!r} and what follows. Shorten the prompt."
            )
        unknown = [
            text[start:end]
            for token, (start, end) in zip(encoding.ids, encoding.offsets, strict=True)
            if token == self._unk_id
        ]
        if unknown:
            words = ", ".join(dict.fromkeys(unknown))
            notes.append(f"The model does not know these words and passes over them: {words}.")
        return notes
