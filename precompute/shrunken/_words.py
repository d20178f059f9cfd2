"""The words of the shrunken language models and what their tokenizers share.

Enough for the prompts of arXiv 2603.22593, those of the world, and names of what the world's scenes show. Any other
word is read as the unknown one. Weights are random, so which words a model says means nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import GenerationConfig

IN_PROMPTS = (
    "user model assistant what is shown in the image images highlighted element of a an . , : ? - ' \" ; / ( ) "
    "describe all these nothing you are given highlighting visual or semantic this may range from low level "
    "feature to high abstract concept your task single clear sentence if as such otherwise its patterns favor "
    "more general interpretation start description with set patches not showing masked out giving impression "
    "pixelated provide for appearing and please ignore effect mask when describing green heatmap overlayed black "
    "where specific has been unique concise explanation words do get distracted by background answer directly "
    "great detail name only some each under it here one thing kind"
).split()
IN_SCENES = (
    "red blue yellow white grey brown orange purple pink crab penguin beach snow grass sky stripes dots near far "
    "circle square dog cat boat house tree car animal bird fish plant flower leaf fruit food vehicle building "
    "tool toy clothing instrument person face water sand sea road wall floor roof window door wheel cloud sun "
    "moon star stone wood metal light dark bright small large round flat smooth rough striped dotted checkered "
    "horizontal vertical diagonal edge corner line curve texture colour shape pattern top bottom left right front "
    "behind above below inside"
).split()
WORDS = tuple(dict.fromkeys((*IN_PROMPTS, *IN_SCENES)))
OUTPUT_DEVIATION = 0.02
"""Of the output weights: small where they are tied to the input, so that an answer follows the images."""
SPECIAL_SHARE = 0.3
"""Of that for special tokens, which are said less often than words."""


def word_tokenizer(special_tokens: Sequence[str], words: Iterable[str] = WORDS) -> Tokenizer:
    """One token for a word in lower case or a mark; ids in the order of ``special_tokens`` and then ``words``."""
    vocabulary = {token: index for index, token in enumerate((*special_tokens, *dict.fromkeys(words)))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=True)
    return tokenizer


def save_answering(model: Any, processor: Any, folder: Path, *, n_special: int, stops: Sequence[str] = ()) -> Path:
    """Give a vision-language model its random weights and write it to ``folder`` with its processor.

    Args:
        model: fresh, of a class with an ``lm_head``; call ``torch.manual_seed`` before building it.
        processor: of its family; the model's answers end at the end token of its tokenizer.
        n_special: special tokens, at the front of the vocabulary.
        stops: further tokens that end an answer.
    """
    _randomise(model, n_special)
    tokenizer = processor.tokenizer
    ends = [tokenizer.eos_token_id, *(tokenizer.convert_tokens_to_ids(token) for token in stops)]
    model.generation_config = GenerationConfig(
        eos_token_id=ends if stops else ends[0],
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
    )
    model.eval().save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@torch.no_grad()
def _randomise(model: Any, n_special: int) -> None:
    """Every matrix gets random entries of unit gain, so that answers depend on every image token.

    A fresh transformers model has small weights and zero positions: its answers would not notice an image, and one
    token could be taken for another unseen. Only the patches are embedded as they were.
    """
    for name, parameter in model.named_parameters():
        if parameter.ndim >= 2 and "patch_embed" not in name:
            parameter.normal_(std=parameter.shape[-1] ** -0.5)
    output = model.lm_head.weight
    output.normal_(std=OUTPUT_DEVIATION)
    output[:n_special] *= SPECIAL_SHARE
