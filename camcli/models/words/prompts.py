"""Words in the place of classes, for models that embed texts beside pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from camcli.errors import ModelError, UsageError
from camcli.keywords import check_keywords
from camcli.models.load import Classifier
from camcli.models.model_lookup import import_builder
from camcli.models.outputs.interpretation import Link, declare_reading
from camcli.models.outputs.likeness import Comparison
from camcli.models.state import call_on_model
from camcli.records import Outputs

PLACE = "{}"
# how open_clip and transformers call what embeds texts
TEXT_METHODS = ("encode_text", "get_text_features")


@dataclass(frozen=True, eq=False)
class TextEmbeddings:
    """Embeddings of texts [k d], and what makes logits of their cosines with a picture's.

    logits = scale * cosine + bias, and `link` makes probabilities of them.
    """

    vectors: Tensor
    scale: float
    bias: float
    link: Link


def reads_words(classifier: Classifier) -> bool:
    """Tells whether a model embeds texts beside pictures."""
    return any(hasattr(classifier.module, method) for method in TEXT_METHODS)


@check_keywords()
def prompt(classifier: Classifier, texts: str | Sequence[str], template: str = PLACE) -> Classifier:
    """Returns a model of pictures and words with texts in the place of its classes.

    Probabilities are among the texts, by softmax (CLIP), or each text's own (SigLIP). A single
    text is explained by its cosine with the picture.

    Args:
        classifier: The model, of `load_model`, with a text tower: open_clip:NAME, or CLIP,
            SigLIP and their kind of transformers (hf:ORG/NAME or a folder).
        texts: What to look for, in words; one text or several.
        template: What is made of each text, which stands in the place of {}; default the text
            alone.

    Returns:
        A Classifier whose labels are the texts. The module is the same.

    Raises:
        UsageError: No text, an empty one, one that is too long, a template without {}, or a model
            that `load_model` did not give.
        ModelError: A model that reads no words.
        WeightsError: A tokenizer that cannot be fetched.

    Example:
        >>> import camcli
        >>> model = camcli.load_model(device="cpu")
        >>> camcli.prompt(model, "a cat")  # doctest: +NORMALIZE_WHITESPACE
        Traceback (most recent call last):
        camcli.errors.ModelError: 'embedded' reads no words: --text is for open_clip:NAME, and for
        CLIP and SigLIP of transformers (hf:ORG/NAME or a folder).
    """
    if not isinstance(classifier, Classifier):
        raise UsageError(
            f"prompt takes a Classifier, as camcli.load_model('open_clip:NAME') gives, not a "
            f"{type(classifier).__name__}: a tokenizer belongs to a model's name."
        )
    items = [texts] if isinstance(texts, str) else list(texts)
    _check_texts(items, template)
    builder = None if classifier.origin == "embedded" else import_builder(classifier.origin)
    encode = getattr(builder, "encode_texts", None)
    if encode is None:
        raise ModelError(
            f"{classifier.name!r} reads no words: --text is for open_clip:NAME, and for CLIP and "
            "SigLIP of transformers (hf:ORG/NAME or a folder)."
        )
    sentences = [template.replace(PLACE, text) for text in items]
    with call_on_model(classifier.module):
        encoded: TextEmbeddings = encode(classifier.module, classifier.name, sentences)
    if len(items) == 1:
        reading = declare_reading("value", classifier.output_key)
        comparison = Comparison(encoded.vectors)
    else:
        meaning: Outputs = "logits" if encoded.link == "softmax" else "independent"
        reading = declare_reading(meaning, classifier.output_key)
        comparison = Comparison(encoded.vectors, scale=encoded.scale, bias=encoded.bias)
    return replace(
        classifier,
        reading=replace(reading, comparison=comparison),
        labels=tuple(items),
        num_classes=len(items),
    )


def _check_texts(texts: Sequence[str], template: str) -> None:
    if not texts:
        raise UsageError('Nothing is looked for: give one text or more, as in --text "a cat".')
    if any(not text.strip() for text in texts):
        raise UsageError("A text is empty: --text says in words what to look for.")
    if twice := {text for text in texts if texts.count(text) > 1}:
        raise UsageError(f"{min(twice)!r} is given twice: each text is a class of its own.")
    if PLACE not in template:
        raise UsageError(f"{template!r} has no {PLACE} in it, where the text stands.")
