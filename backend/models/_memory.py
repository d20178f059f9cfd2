"""How much memory one answer takes while it is generated, from the language model's config. An estimate from above."""

from __future__ import annotations

from typing import Any

_KEPT_PER_WIDTH = 6
"""Copies of a layer's residual stream that live at once in a prefill: stream, norm, queries, keys, values, output."""
_KEPT_PER_MLP = 3
"""Gate, up and their product."""


def answer_bytes(config: Any, n_prompt: int, n_new: int, element_bytes: int) -> int:
    """Bytes of one row: its cache of keys and values over all layers, the prefill of one layer, and its logits.

    Args:
        config: the language model's config in transformers' names.
        n_prompt: positions of the prompt, images included.
        n_new: longest answer in tokens.
        element_bytes: bytes per number of the model's dtype.
    """
    width, heads = int(config.hidden_size), int(config.num_attention_heads)
    head_width = int(getattr(config, "head_dim", None) or width // heads)
    key_heads = int(getattr(config, "num_key_value_heads", None) or heads)
    cache = 2 * int(config.num_hidden_layers) * key_heads * head_width * (n_prompt + n_new)
    prefill = n_prompt * (_KEPT_PER_WIDTH * width + _KEPT_PER_MLP * int(config.intermediate_size))
    logits = 2 * int(config.vocab_size)
    return (cache + prefill + logits) * element_bytes + 4 * int(config.vocab_size)
