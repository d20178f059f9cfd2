"""The subject's parts: tokenizer, processor, config, and the empty Gemma 3 model around the trained tower.

Everything is transformers' own class and is saved with ``save_pretrained``; the Gemma 3 adapter loads the result like
any other checkpoint.
"""

from __future__ import annotations

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3Processor,
    Gemma3TextConfig,
    GenerationConfig,
    PreTrainedTokenizerFast,
    SiglipVisionModel,
)
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil

from precompute.world.captions import GROUP_PHRASES, NOTHING, group_phrase
from precompute.world.concepts import CONCEPTS, HYPERNYMS
from precompute.world.fills import SIDE_PX
from precompute.world.prompts import ALL_PROMPTS
from precompute.world.tower import tower_config

TOKENS_PER_IMAGE = 16
SPECIAL_TOKENS = ("<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>", "<start_of_image>",
                  "<end_of_image>", "<image_soft_token>")  # fmt: skip
GRAMMAR_WORDS = "user model and on in front of with next to above below left right big small a an the some kind . , ? :"
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<start_of_turn>' + ('model' if message['role'] == 'assistant' else message['role']) + '\n' }}"
    "{% if message['content'] is string %}{{ message['content'] | trim }}{% else %}"
    "{% for item in message['content'] %}"
    "{% if item['type'] == 'image' %}{{ '<start_of_image>' }}"
    "{% elif item['type'] == 'text' %}{{ item['text'] | trim }}{% endif %}"
    "{% endfor %}{% endif %}{{ '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
"""The layout of Gemma 3's own template: one user turn, its images first."""


def vocabulary() -> list[str]:
    """Special tokens, then every word the world can say or be asked, sorted."""
    texts = [GRAMMAR_WORDS, NOTHING, *ALL_PROMPTS, *GROUP_PHRASES.values(), *(group_phrase(one) for one in HYPERNYMS)]
    texts += [wording for concept in CONCEPTS for wording in concept.phrases]
    words = {word for text in texts for word in text.lower().split()}
    return [*SPECIAL_TOKENS, *sorted(words)]


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A word-level tokenizer with Gemma 3's special tokens."""
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(vocabulary())}, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=True)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        unk_token="<unk>",
        extra_special_tokens={
            "boi_token": "<start_of_image>",
            "eoi_token": "<end_of_image>",
            "image_token": "<image_soft_token>",
            "start_of_turn_token": "<start_of_turn>",
            "end_of_turn_token": "<end_of_turn>",
        },
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )


def build_processor(tokenizer: PreTrainedTokenizerFast) -> Gemma3Processor:
    """Gemma 3's processor: resize to 128 px, scale to [-1, 1], no pan and scan."""
    image_processor = Gemma3ImageProcessorPil(size={"height": SIDE_PX, "width": SIDE_PX}, do_pan_and_scan=False)
    return Gemma3Processor(image_processor=image_processor, tokenizer=tokenizer, chat_template=CHAT_TEMPLATE,
                           image_seq_length=TOKENS_PER_IMAGE)  # fmt: skip


def build_config(tokenizer: PreTrainedTokenizerFast) -> Gemma3Config:
    """Text width 128, four layers (every second one with full attention), tied embeddings."""

    def token(word: str) -> int:
        return tokenizer.get_vocab()[word]

    text = Gemma3TextConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        query_pre_attn_scalar=32,
        max_position_embeddings=1024,
        sliding_window=512,
        layer_types=["sliding_attention", "full_attention"] * 2,
        pad_token_id=token("<pad>"),
        eos_token_id=token("<eos>"),
        bos_token_id=token("<bos>"),
    )
    config = Gemma3Config(
        text_config=text.to_dict(),
        vision_config=tower_config().to_dict(),
        mm_tokens_per_image=TOKENS_PER_IMAGE,
        boi_token_index=token("<start_of_image>"),
        eoi_token_index=token("<end_of_image>"),
        image_token_index=token("<image_soft_token>"),
    )
    config.eos_token_id = [token("<eos>"), token("<end_of_turn>")]
    return config


def build_subject(
    tokenizer: PreTrainedTokenizerFast, tower: SiglipVisionModel, seed: int
) -> Gemma3ForConditionalGeneration:
    """A Gemma 3 model with the trained tower and a fresh projector and language model."""
    torch.manual_seed(seed)
    model = Gemma3ForConditionalGeneration(build_config(tokenizer))
    projector = model.model.multi_modal_projector
    torch.nn.init.normal_(projector.mm_input_projection_weight, std=0.05)
    model.model.vision_tower.load_state_dict(tower.state_dict())
    stops = [tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<end_of_turn>")]
    fixed = {"eos_token_id": stops, "pad_token_id": tokenizer.pad_token_id, "bos_token_id": tokenizer.bos_token_id}
    model.generation_config = GenerationConfig.from_dict(fixed)
    return model
