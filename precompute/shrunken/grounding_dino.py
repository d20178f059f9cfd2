"""A shrunken Grounding DINO: Swin backbone, BERT, cross-modal encoder and decoder, with the released file layout.

The tokenizer has BERT's ids of special tokens, marks and letters, because the model reads four of them by number.
"""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import torch

N_UNUSED = 99
FIRST_MARK = 999
"""Id of ``!`` in BERT's English vocabulary; the printable characters follow as in ASCII, without capitals."""
SHORTEST_PX, LONGEST_PX = 64, 96
D_MODEL = 64
"""Two channels in each of the model's 32 groups: with one, a map of one place could not be normalised by group."""


def build(folder: Path, *, seed: int = 0) -> Path:
    """Save a random model and its processor to ``folder``."""
    from transformers import (
        BertConfig,
        GroundingDinoConfig,
        GroundingDinoForObjectDetection,
        GroundingDinoImageProcessor,
        GroundingDinoProcessor,
        SwinConfig,
    )

    torch.manual_seed(seed)
    tokenizer = _tokenizer()
    levels: dict[str, Any] = {"out_indices": [2, 3, 4]}
    swin = SwinConfig(
        image_size=SHORTEST_PX,
        embed_dim=8,
        depths=[1, 1, 1, 1],
        num_heads=[1, 1, 2, 2],
        window_size=4,
        **levels,
    )
    bert = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
    )
    config = GroundingDinoConfig(
        backbone_config=swin,
        text_config=bert,
        d_model=D_MODEL,
        num_queries=12,
        encoder_layers=1,
        decoder_layers=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        max_text_len=48,
    )
    model = GroundingDinoForObjectDetection(config).eval()
    _open_up(model)
    model.save_pretrained(folder)
    size = {"shortest_edge": SHORTEST_PX, "longest_edge": LONGEST_PX}
    GroundingDinoProcessor(GroundingDinoImageProcessor(size=size), tokenizer).save_pretrained(folder)
    return folder


def _tokenizer() -> Any:
    from transformers import BertTokenizer

    special = {0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 103: "[MASK]"}
    characters = [chr(code) for code in range(33, 127) if chr(code) not in string.ascii_uppercase]
    words = [special.get(index, f"[unused{index}]") for index in range(FIRST_MARK)] + characters
    words += [f"##{letter}" for letter in string.ascii_lowercase + string.digits]
    return BertTokenizer(vocab={word: index for index, word in enumerate(words)}, do_lower_case=True)


@torch.no_grad()
def _open_up(model: Any) -> None:
    """Random weights of unit gain: in a fresh model all queries say the same, and no word would change a box.

    The queries that meet the words are made small, so that scores lie on both sides of any threshold.
    """
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2 and "embedding" not in name.lower() and "relative_position" not in name:
            parameter.normal_(std=parameter.shape[-1] ** -0.5)
    model.model.decoder.layer_norm.weight.fill_(0.1)
