"""The tokenizer of CLIP's text encoders with letters for its vocabulary: byte-level BPE without a single merge."""

from __future__ import annotations

from typing import Any

START, END = "<|startoftext|>", "<|endoftext|>"


def letter_tokenizer(max_length: int) -> Any:
    """A transformers CLIPTokenizer: 256 bytes, the same at a word's end, and the two special tokens (ids 512, 513)."""
    from transformers import CLIPTokenizer

    letters = _byte_letters()
    words = [*letters, *(f"{letter}</w>" for letter in letters), START, END]
    vocabulary = {word: index for index, word in enumerate(words)}
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=max_length)


def _byte_letters() -> list[str]:
    """The printable letter that stands for each of the 256 bytes, as in every byte-level BPE."""
    from tokenizers.pre_tokenizers import ByteLevel

    return sorted(ByteLevel.alphabet())
