"""Files of class names, as people have them -> a name for each class.

A file gives either names in the order of the classes, or indices with names, in any order.  What
can be read both ways, so that each class might get another's name, is refused.
"""

from __future__ import annotations

from pathlib import Path

from camcli.models.labels.class_map_entries import ClassMap, Names
from camcli.models.labels.class_map_json import parse_data, read_data
from camcli.models.labels.class_map_lines import read_lines
from camcli.utils.text_files import read_text


def read_class_map(file: Path, num_classes: int) -> tuple[Names, tuple[str, ...]]:
    """Reads a file of class names: the names, and what is to be said of how they were read.

    A name a line; an index and a name a line, either first, with or without a header; or JSON: a
    list of names, index to name, name to index, or a model's config that holds one of these.
    Classes without a name get an empty one.  Raises ConfigError, with the line's number.
    """
    known = ClassMap(file, num_classes)
    try:
        text = read_text(file, encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = "is no UTF-8 text: save it as UTF-8"
        if isinstance(error, OSError):
            why = f"cannot be read ({error.strerror})"
        raise known.fault(f" {why}") from error
    if not text.strip():
        raise known.fault(" is empty")
    if file.suffix.lower() == ".json" or text.lstrip()[0] in "{[":
        return read_data(parse_data(text, known), known)
    return read_lines(text, known)
