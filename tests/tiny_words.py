"""Tiny random models of transformers that embed pictures and texts, and their tokenizers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.tiny_transformers import ANY_SIZE, VIT, WIDTH, Settings, Tiny, build_tiny

WORDS = ("<pad>", "<unk>", "<s>", "</s>", "a", "an", "cat", "dog", "espresso", "photo", "of", ".")
# tokens that the models read, and what they embed in
CONTEXT, EMBEDDED = 12, 24
SPECIAL = {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
TEXT = {
    **WIDTH,
    **SPECIAL,
    "intermediate_size": 48,
    "vocab_size": len(WORDS),
    "max_position_embeddings": CONTEXT,
    "projection_size": WIDTH["hidden_size"],
}
# RoBERTa counts positions from behind the padding
ROBERTA = {**TEXT, "max_position_embeddings": CONTEXT + 1, "project_dim": EMBEDDED}
PROJECTED = {"projection_dim": EMBEDDED}
SQUARE = {"size": {"height": 64, "width": 64}}
CROP = {"size": {"shortest_edge": 64}, "crop_size": {"height": 64, "width": 64}}
ALIGN = {"image_size": 64, "width_coefficient": 0.25, "depth_coefficient": 0.2, "hidden_dim": 80}


@dataclass(frozen=True)
class Worded:
    """A tiny model's configuration, and the processor of its pictures with its settings."""

    tiny: Tiny
    processor: str = "CLIPImageProcessor"
    settings: Settings = field(default_factory=lambda: CROP)


def _make(kind: str, vision: Settings, text: Settings, extra: Settings) -> Tiny:
    settings = {"vision_config": vision, "text_config": text, **extra}
    return Tiny(f"{kind}Config", settings, f"{kind}Model")


MODELS: Mapping[str, Worded] = {
    "clip": Worded(_make("CLIP", VIT, TEXT, PROJECTED)),
    "siglip": Worded(_make("Siglip", VIT, TEXT, {}), "SiglipImageProcessor", SQUARE),
    "siglip2": Worded(
        _make("Siglip2", {**ANY_SIZE, "num_patches": 16}, {**TEXT, "vocab_size": 64}, {}),
        "Siglip2ImageProcessor",
        {"patch_size": 16, "max_num_patches": 16},
    ),
    "metaclip_2": Worded(_make("MetaClip2", VIT, TEXT, PROJECTED)),
    "altclip": Worded(_make("AltCLIP", VIT, ROBERTA, PROJECTED)),
    "chinese_clip": Worded(_make("ChineseCLIP", VIT, TEXT, PROJECTED)),
    "clipseg": Worded(_make("CLIPSeg", VIT, TEXT, PROJECTED)),
    "blip": Worded(_make("Blip", VIT, {**TEXT, "encoder_hidden_size": 32}, PROJECTED)),
    "align": Worded(
        _make("Align", ALIGN, {**TEXT, "hidden_size": 80}, {"projection_dim": 80}),
    ),
}


def make_tokenizer(longest: int = CONTEXT) -> Any:
    """Makes a tokenizer of WORDS, which ends what it reads by </s>."""
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = {word: number for number, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 2), ("</s>", 3)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        model_max_length=longest,
        tokenizer_class="PreTrainedTokenizerFast",
        # as BERT's, which not every text tower takes
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


def make_siglip2_tokenizer() -> Any:
    """Makes a tokenizer of letters, and of the pairs that lead to each of WORDS."""
    import transformers

    words = [word for word in WORDS[4:] if len(word) > 1]
    merges = list(dict.fromkeys((word[:n], word[n]) for word in words for n in range(1, len(word))))
    special = ("<pad>", "<eos>", "<bos>", "<unk>", "<mask>")
    vocabulary = [*special, "\u2581", ".", *"abcdefghijklmnopqrstuvwxyz", *map("".join, merges)]
    return transformers.Siglip2Tokenizer(
        {token: number for number, token in enumerate(vocabulary)},
        merges,
        model_max_length=CONTEXT,
        padding_side="right",
    )


def save_worded(folder: Path, name: str) -> Any:
    """Saves a tiny model with the processor of its pictures and a tokenizer, and returns it."""
    import transformers

    worded = MODELS[name]
    module = build_tiny(worded.tiny)
    module.save_pretrained(folder)
    getattr(transformers, worded.processor)(**worded.settings).save_pretrained(folder)
    tokenizer = make_siglip2_tokenizer() if name == "siglip2" else make_tokenizer()
    tokenizer.save_pretrained(folder)
    return module
