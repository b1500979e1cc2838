"""Texts as a model of transformers reads them beside pictures: its tokenizer, its embeddings."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional as F

from camcli.errors import ModelError, UsageError, WeightsError, first_line
from camcli.models.hugging_face.adapters import find_tokenizer_folder
from camcli.models.hugging_face.networks import EMBED_TEXTS, FORWARD_WITH_TEXTS, embeds_words
from camcli.models.hugging_face.quiet import keep_quiet
from camcli.models.hugging_face.repository import parse_image_size
from camcli.models.words.prompts import TextEmbeddings
from camcli.utils.warning_filters import ignore_warnings

Tokens = dict[str, Tensor]

# architectures that were trained on texts padded to one length, without a mask of what is padding
PADDED = ("siglip", "siglip2", "tipsv2")
# the largest difference from the model's own logits that rounding explains
ROUNDING = 1e-3
# of the edges of the picture of noise, where a configuration has no size
NOISE_EDGE = 224


def encode_texts(module: nn.Module, name: str, texts: Sequence[str]) -> TextEmbeddings:
    """Encodes texts as the model compares them with pictures.

    Raises ModelError, UsageError for a text that is too long, or WeightsError.
    """
    model: Any = module
    if not embeds_words(model):
        raise ModelError(
            f"{name!r} is a {type(model).__name__}, which reads no words: --text is for models "
            "that embed pictures and texts, as CLIPModel and SiglipModel do (hf:ORG/NAME, or a "
            "folder with its tokenizer), and for open_clip:NAME."
        )
    with keep_quiet():
        tokens = _tokenize(model, name, texts)
    bias = getattr(model, "logit_bias", None)
    with torch.no_grad():
        vectors = F.normalize(model.get_text_features(**tokens).pooler_output.float(), dim=1)
        encoded = TextEmbeddings(
            vectors.cpu(),
            _read_scale(model),
            0.0 if bias is None else float(bias),
            "softmax" if bias is None else "sigmoid",
        )
        _check_logits(model, tokens, encoded)
    return encoded


def _tokenize(model: Any, name: str, texts: Sequence[str]) -> Tokens:
    """Makes tokens of texts as the model's processor does; raises UsageError for a long one."""
    tokenizer = _load_tokenizer(name)
    config = model.config.get_text_config()
    longest = min(tokenizer.model_max_length, config.max_position_embeddings)
    for text, row in zip(texts, tokenizer(list(texts))["input_ids"], strict=True):
        if len(row) > longest:
            raise UsageError(
                f"{text!r} is longer than the {longest} tokens that {name!r} reads: shorten it."
            )
    whole = {"padding": "max_length", "max_length": longest}
    padding = whole if model.config.model_type in PADDED else {"padding": True}
    tokens = tokenizer(list(texts), return_tensors="pt", **padding)
    # tokenizers of BERT's kind give more than every text tower takes
    taken = inspect.signature(getattr(model, EMBED_TEXTS)).parameters
    return {key: value.to(model.device) for key, value in tokens.items() if key in taken}


def _load_tokenizer(name: str) -> Any:
    folder = find_tokenizer_folder(name)
    try:
        with ignore_warnings():
            return transformers.AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
    except Exception as error:  # tokenizers raise their own kinds
        raise WeightsError(
            f"The tokenizer of {name!r} cannot be loaded: {first_line(error)}."
        ) from error


def _read_scale(model: Any) -> float:
    """Returns what cosines are multiplied by, which some models call the inverse of it."""
    if hasattr(model, "logit_scale"):
        return float(model.logit_scale.exp())
    return 1 / float(getattr(model, "temperature", 1))


def _check_logits(model: Any, tokens: Tokens, encoded: TextEmbeddings) -> None:
    """Raises ModelError where a model's own logits are no scaled cosines of its embeddings."""
    size = parse_image_size(model.config.to_dict()) or (NOISE_EDGE, NOISE_EDGE)
    noise = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0)).to(model.device)
    wanted = getattr(model, FORWARD_WITH_TEXTS)(noise, **tokens).logits_per_image.float().cpu()
    embedding = F.normalize(model(noise).pooler_output.float(), dim=1).cpu()
    logits = encoded.scale * embedding @ encoded.vectors.T + encoded.bias
    if wanted.shape != logits.shape or (wanted - logits).abs().max() > ROUNDING * encoded.scale:
        raise ModelError(
            f"A {type(model).__name__} compares pictures and texts otherwise than by the cosine of "
            "their embeddings: --text does not explain it."
        )
