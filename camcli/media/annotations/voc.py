"""Pascal VOC's XML: a file a picture.

`xmin`, `ymin`, `xmax` and `ymax` are pixels counted from 1, the last one inside (the VOC2012
development kit, section 10.3): the whole of a picture of w pixels is 1 to w, here 0 to w.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from xml.etree import ElementTree

from camcli.errors import AnnotationError
from camcli.media.annotations.files import Fault, list_files, list_texts, read_bytes
from camcli.media.annotations.values import Annotations, Instance, PictureAnnotations, list_labels
from camcli.records import Box

LARGEST = 2**24  # bytes of a picture's file
EDGES = ("xmin", "ymin", "xmax", "ymax")


def read_voc(path: Path) -> Annotations:
    """Reads a file, or all `.xml` in a folder; a file that is none is left out, with a note.

    Raises AnnotationError where there is no file at all, or none that can be read.
    """
    files = [path] if path.is_file() else list_files(path, [".xml"])
    pictures: list[PictureAnnotations] = []
    faults: list[Fault | str] = []
    for file in files:
        try:
            pictures.append(_parse_picture(file, faults))
        except AnnotationError as error:
            faults.append(str(error))
    if not pictures:
        why = str(faults[0]) if faults else f"{path} holds no .xml file."
        raise AnnotationError(why)
    return Annotations(tuple(pictures), list_labels(pictures), list_texts(faults))


class _NoDoctype(ElementTree.TreeBuilder):
    """Refuses a document type, which alone can define entities that grow or read other files."""

    def doctype(self, name: str, *_: str | None) -> None:
        """Raises ValueError."""
        raise ValueError(f"it has a DOCTYPE ({name}), which may define entities: take it out")


def _parse_root(file: Path) -> ElementTree.Element:
    parser = ElementTree.XMLParser(target=_NoDoctype())
    try:
        # bytes, since the file itself may say how it is encoded
        parser.feed(read_bytes(file, LARGEST))
        root: ElementTree.Element = parser.close()
    except (ElementTree.ParseError, ValueError) as error:
        raise AnnotationError(f"{file} cannot be read: {error}.") from error
    if root.tag != "annotation":
        raise AnnotationError(
            f"{file} is no Pascal VOC file: it begins with <{root.tag}>, not <annotation>."
        )
    return root


def _parse_picture(file: Path, faults: list[Fault | str]) -> PictureAnnotations:
    root = _parse_root(file)
    instances = []
    for number, item in enumerate(root.iter("object"), 1):
        try:
            instances.append(_parse_instance(item))
        except ValueError as error:
            faults.append(Fault(f"{file}, object {number}", str(error)))
    name = _find_text(root, "filename") or file.with_suffix("").name
    return PictureAnnotations(name, tuple(instances), _parse_size(root), where=str(file))


def _parse_size(root: ElementTree.Element) -> tuple[int, int] | None:
    height, width = (_find_text(root, f"size/{edge}") for edge in ("height", "width"))
    # some tools write 0 for what they do not know
    is_told = height.isdecimal() and width.isdecimal() and int(height) > 0 and int(width) > 0
    return (int(height), int(width)) if is_told else None


def _parse_instance(item: ElementTree.Element) -> Instance:
    label = _find_text(item, "name")
    if not label:
        raise ValueError("it has no name")
    texts = [_find_text(item, f"bndbox/{edge}") for edge in EDGES]
    if not all(texts):
        missing = EDGES[texts.index("")]
        raise ValueError(f"{label!r} has no {missing} in a bndbox")
    try:
        left, top, right, bottom = map(float, texts)
    except ValueError:
        raise ValueError(f"the bndbox of {label!r} is {', '.join(texts)}, no numbers") from None
    return Instance(label, Box(left - 1, top - 1, right, bottom))


def _find_text(element: ElementTree.Element, path: str) -> str:
    return (element.findtext(path) or "").strip()


def write_voc(pictures: Sequence[PictureAnnotations], folder: Path) -> None:
    """Writes a file a picture, which `read_voc` reads back equal but for outlines, which it lacks.

    Files lie as the pictures do, below the folder.  Raises OSError, or ValueError for what has no
    size in pixels.
    """
    for picture in pictures:
        file = folder / PurePosixPath(picture.name).with_suffix(".xml")
        file.parent.mkdir(parents=True, exist_ok=True)
        tree = ElementTree.ElementTree(_make_element(picture))
        ElementTree.indent(tree)
        tree.write(file, encoding="utf-8")


def _make_element(picture: PictureAnnotations) -> ElementTree.Element:
    if picture.size is None or picture.unit != "pixels":
        raise ValueError(f"{picture.name} has no size in pixels")
    root = ElementTree.Element("annotation")
    ElementTree.SubElement(root, "filename").text = picture.name
    size = ElementTree.SubElement(root, "size")
    for name, value in zip(("height", "width", "depth"), (*picture.size, 3), strict=True):
        ElementTree.SubElement(size, name).text = str(value)
    for instance in picture.instances:
        if instance.box is None:
            continue
        item = ElementTree.SubElement(root, "object")
        ElementTree.SubElement(item, "name").text = instance.label
        box = instance.box
        edges = (box.left + 1, box.top + 1, box.right, box.bottom)
        bndbox = ElementTree.SubElement(item, "bndbox")
        for name, edge in zip(EDGES, edges, strict=True):
            ElementTree.SubElement(bndbox, name).text = f"{edge:.15g}"
    return root
