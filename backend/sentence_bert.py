"""The forward pass of a small BERT sentence encoder (MiniLM), in NumPy.

A query is a handful of words: loading torch and transformers for it would take seconds, the arithmetic takes
milliseconds. tests/test_search.py checks the result against sentence-transformers on the same weights.
Source of the architecture: Devlin et al., arXiv 1810.04805; mean pooling and unit norm as in the model's modules.json.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from einops import rearrange
from jaxtyping import Float32, Int

from backend.errors import DependencyMissing

_MAX_TOKENS_PER_BATCH = 4096


class SentenceBert:
    """Weights, tokenizer and arithmetic of one model folder. Read-only after construction."""

    def __init__(self, model_dir: Path) -> None:
        """Load the model. Raises DependencyMissing if tokenizers, safetensors or scipy are absent."""
        try:
            from safetensors.numpy import load_file
            from scipy.special import erf
            from tokenizers import Tokenizer
        except ImportError as error:
            raise DependencyMissing(
                f"The sentence encoder cannot be loaded ({error}). Install: pip install tokenizers safetensors scipy"
            ) from error
        config = json.loads((model_dir / "config.json").read_text(encoding="utf-8"))
        limits = json.loads((model_dir / "sentence_bert_config.json").read_text(encoding="utf-8"))
        assert config["hidden_act"] == "gelu" and config["position_embedding_type"] == "absolute", config
        self._erf = erf
        self._n_heads = int(config["num_attention_heads"])
        self._n_layers = int(config["num_hidden_layers"])
        self._epsilon = float(config["layer_norm_eps"])
        stored = load_file(model_dir / "model.safetensors")
        self._weights = {name: array.astype(np.float32) for name, array in stored.items() if array.dtype.kind == "f"}
        self._tokenizer = Tokenizer.from_file(str(model_dir / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_length=int(limits["max_seq_length"]))

    def encode(self, texts: Sequence[str]) -> Float32[np.ndarray, "text d"]:
        """Unit rows, one per text. Texts of equal length share a batch, so no padding enters the arithmetic."""
        tokens = [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts))]
        rows = np.zeros((len(texts), self._weights["embeddings.word_embeddings.weight"].shape[1]), np.float32)
        for places in _batches([len(ids) for ids in tokens]):
            rows[places] = self._forward(np.array([tokens[place] for place in places]))
        return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)

    def _forward(self, ids: Int[np.ndarray, "text token"]) -> Float32[np.ndarray, "text d"]:
        hidden = self._weights["embeddings.word_embeddings.weight"][ids]
        hidden = hidden + self._weights["embeddings.position_embeddings.weight"][: ids.shape[1]]
        hidden = hidden + self._weights["embeddings.token_type_embeddings.weight"][0]
        hidden = self._norm(hidden, "embeddings.LayerNorm")
        for layer in range(self._n_layers):
            name = f"encoder.layer.{layer}"
            hidden = self._norm(
                hidden + self._attention(hidden, f"{name}.attention"), f"{name}.attention.output.LayerNorm"
            )
            wide = self._linear(hidden, f"{name}.intermediate.dense")
            wide = wide * (0.5 * (1 + self._erf(wide * np.float32(2**-0.5)))).astype(np.float32)
            hidden = self._norm(hidden + self._linear(wide, f"{name}.output.dense"), f"{name}.output.LayerNorm")
        return hidden.mean(axis=1)

    def _attention(self, hidden: Float32[np.ndarray, "text token d"], name: str) -> Float32[np.ndarray, "text token d"]:
        query, key, value = (
            rearrange(
                self._linear(hidden, f"{name}.self.{part}"),
                "text token (head width) -> text head token width",
                head=self._n_heads,
            )
            for part in ("query", "key", "value")
        )
        logits = query @ rearrange(key, "text head token width -> text head width token")
        logits *= np.float32(query.shape[-1] ** -0.5)
        weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        mixed = rearrange(weights @ value, "text head token width -> text token (head width)")
        return self._linear(mixed, f"{name}.output.dense")

    def _linear(self, x: Float32[np.ndarray, "text token inner"], name: str) -> Float32[np.ndarray, "text token outer"]:
        flat = rearrange(x, "text token inner -> (text token) inner")  # one large product instead of many small ones
        out = flat @ self._weights[f"{name}.weight"].T + self._weights[f"{name}.bias"]
        return rearrange(out, "(text token) outer -> text token outer", text=len(x))

    def _norm(self, x: Float32[np.ndarray, "text token d"], name: str) -> Float32[np.ndarray, "text token d"]:
        centred = x - x.mean(axis=-1, keepdims=True)
        scale = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + np.float32(self._epsilon))
        return centred / scale * self._weights[f"{name}.weight"] + self._weights[f"{name}.bias"]


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Positions grouped by equal length, at most a fixed number of tokens at a time."""
    groups: dict[int, list[int]] = defaultdict(list)
    for place, length in enumerate(lengths):
        groups[length].append(place)
    for length, places in sorted(groups.items()):
        size = max(1, _MAX_TOKENS_PER_BATCH // max(length, 1))
        yield from (places[start : start + size] for start in range(0, len(places), size))
