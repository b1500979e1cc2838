"""One hand-made picture in every format: 8 pixels wide, 4 high, an object from (2, 1) to (5, 3)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from camcli.errors import AnnotationError, UnknownName, UsageError
from camcli.media.annotations import (
    FORMATS,
    Annotations,
    Instance,
    PictureAnnotations,
    find_format,
    read_annotations,
)
from camcli.media.annotations.values import draw_box
from camcli.records import Box

SIZE = (4, 8)
BOX = Box(2, 1, 5, 3)
MASK = np.array(
    [
        [0, 0, 0, 0, 0, 0, 0, 0],
        [0, 0, 1, 1, 1, 0, 0, 0],
        [0, 0, 1, 1, 1, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 0],
    ],
    bool,
)
SHARES = "0.4375 0.5 0.375 0.5"  # centre (3.5, 2) and 3 x 2 pixels, of 8 x 4
VOC = """<annotation><filename>bird.jpg</filename>
<size><width>8</width><height>4</height><depth>3</depth></size>
{objects}</annotation>"""
OBJECT = (
    "<object><name>{}</name><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax>"
    "</bndbox></object>"
)


def write(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file


def coco(folder: Path, *annotations: dict[str, object], **more: object) -> Path:
    data = {
        "images": [{"id": 7, "file_name": "bird.jpg", "height": 4, "width": 8}],
        "categories": [{"id": 3, "name": "bird"}],
        "annotations": [{"id": 1, "image_id": 7, "category_id": 3, **a} for a in annotations],
    }
    return write(folder / "instances.json", json.dumps(data | more))


def voc(folder: Path, objects: str = OBJECT.format("bird", 3, 2, 5, 3)) -> Path:
    return write(folder / "bird.xml", VOC.format(objects=objects))


def yolo(folder: Path, text: str = f"1 {SHARES}\n") -> Path:
    write(folder / "data.yaml", "names: [cat, bird]\n")
    write(folder / "bird.txt", text)
    return folder


def open_images(folder: Path) -> Path:
    write(folder / "class-descriptions-boxable.csv", "/m/015p6,bird\n/m/01yrx,Cat\n")
    header = "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsGroupOf"
    row = "bird,xclick,/m/015p6,1,0.25,0.625,0.25,0.75,0,0"
    return write(folder / "boxes.csv", f"{header}\n{row}\n")


def cub(folder: Path) -> Path:
    write(folder / "images.txt", "1 001.bird/bird.jpg\n")
    write(folder / "bounding_boxes.txt", "1 2.0 1.0 3.0 2.0\n")
    write(folder / "image_class_labels.txt", "1 1\n")
    write(folder / "classes.txt", "1 bird\n")
    return folder


def masks(folder: Path) -> Path:
    (folder / "bird").mkdir()
    Image.fromarray(MASK.astype(np.uint8) * 255).save(folder / "bird" / "bird.png")
    return folder


def voc_masks(folder: Path) -> Path:
    values = np.where(MASK, 3, 0).astype(np.uint8)
    values[0, 0] = 255
    image = Image.fromarray(values).convert("P")
    image.putpalette([v for index in range(256) for v in (index, 0, 0)])
    folder.mkdir(exist_ok=True)
    image.save(folder / "bird.png")
    return folder


SOURCES: dict[str, Callable[[Path], Path]] = {
    "coco, bbox": lambda f: coco(f, {"bbox": [2, 1, 3, 2]}),
    "coco, polygon": lambda f: coco(f, {"segmentation": [[2, 1, 5, 1, 5, 3, 2, 3]]}),
    "coco, run lengths": lambda f: coco(
        f, {"segmentation": {"counts": [9, 2, 2, 2, 2, 2, 13], "size": [4, 8]}}
    ),
    # the same counts as pycocotools writes them
    "coco, compressed": lambda f: coco(f, {"segmentation": {"counts": "922000;", "size": [4, 8]}}),
    "voc": voc,
    "yolo, box": yolo,
    "yolo, polygon": lambda f: yolo(f, "1 0.25 0.25 0.625 0.25 0.625 0.75 0.25 0.75\n"),
    "yolo, prediction": lambda f: yolo(f, f"1 {SHARES} 0.9\n"),
    "yolo, data.yaml": lambda f: yolo(f) / "data.yaml",
    "open images": open_images,
    "csv, edges": lambda f: write(
        f / "b.csv", "path,label,xmin,ymin,xmax,ymax\na/bird.jpg,bird,2,1,5,3\n"
    ),
    "csv, size": lambda f: write(
        f / "b.csv", "image,x,y,width,height,label\nbird.jpg,2,1,3,2,bird"
    ),
    "cub": cub,
    "masks": masks,
}


def instance_of(annotations: Annotations, size: tuple[int, int] = SIZE) -> Instance:
    (picture,) = annotations
    placed, notes = picture.in_pixels(size)
    assert notes == ()
    (instance,) = placed.instances
    return instance


@pytest.mark.parametrize("name", SOURCES)
def test_every_format_gives_the_same_box_and_pixels(name: str, tmp_path: Path) -> None:
    annotations = read_annotations(SOURCES[name](tmp_path))
    assert annotations.notes == ()
    instance = instance_of(annotations)
    assert instance.label == "bird"
    assert instance.box == BOX
    placed, _ = annotations.pictures[0].in_pixels(SIZE)
    objects, crowds = placed.masks()
    assert objects.tolist() == MASK.tolist()
    assert not crowds.any()
    assert placed.boxes().tolist() == [[2, 1, 5, 3]]


def test_a_list_without_header_has_edges_and_no_labels(tmp_path: Path) -> None:
    instance = instance_of(read_annotations(write(tmp_path / "l.csv", "x/bird.jpg,2,1,5,3\n")))
    assert (instance.label, instance.box) == ("", BOX)


def test_masks_of_a_palette_are_classes_and_255_is_nobodys(tmp_path: Path) -> None:
    folder = voc_masks(tmp_path / "masks")
    instance = instance_of(read_annotations(folder))
    assert (instance.label, instance.box) == ("3", BOX)
    names = write(tmp_path / "names.txt", "background\ncat\ndog\nbird\n")
    assert instance_of(read_annotations(folder, "masks", names)).label == "bird"


def test_masks_of_one_bit_and_of_grey_in_colours(tmp_path: Path) -> None:
    Image.fromarray(MASK).save(tmp_path / "one.png")
    grey = np.repeat(MASK[..., None].astype(np.uint8), 3, 2)
    Image.fromarray(grey).save(tmp_path / "two.png")
    red = grey.copy()
    red[..., 1:] = 0
    Image.fromarray(red).save(tmp_path / "wrong.png")
    annotations = read_annotations(tmp_path)
    assert [p.instances[0].box for p in annotations] == [BOX, BOX]
    (note,) = annotations.notes
    assert "wrong.png: it is no mask (it has colours" in note


def test_the_folders_of_pictures_are_their_labels(tmp_path: Path) -> None:
    for name in ("cat/a.jpg", "dog/x/b.png", "c.jpg"):
        write(tmp_path / name, "")
    annotations = read_annotations(tmp_path)
    assert [(p.name, p.instances[0].label) for p in annotations] == [
        ("cat/a.jpg", "cat"),
        ("dog/x/b.png", "dog"),
    ]
    assert annotations.labels == ("cat", "dog")
    assert annotations.notes == (
        f"{tmp_path / 'c.jpg'}: it lies in no class's folder; it is left out",
    )


def test_crowds_are_apart(tmp_path: Path) -> None:
    annotations = read_annotations(
        coco(tmp_path, {"bbox": [2, 1, 3, 2], "iscrowd": 1}, {"bbox": [0, 0, 1, 1]})
    )
    placed, _ = annotations.pictures[0].in_pixels(SIZE)
    objects, crowds = placed.masks(["bird"])
    assert crowds.tolist() == MASK.tolist()
    assert objects.sum() == 1
    assert placed.boxes().tolist() == [[0, 0, 1, 1]]
    assert not placed.masks(["cat"])[0].any()


def test_groups_of_open_images_are_crowds(tmp_path: Path) -> None:
    file = open_images(tmp_path)
    file.write_text(file.read_text().replace("0,0\n", "0,1\n"))
    assert instance_of(read_annotations(file)).is_crowd


@pytest.mark.parametrize(
    ("item", "what"),
    [
        ({"image_id": 8, "bbox": [0, 0, 1, 1]}, "no image has the id 8"),
        ({"category_id": 9, "bbox": [0, 0, 1, 1]}, "no category has the id 9"),
        ({}, "it has neither a bbox nor a segmentation"),
        ({"bbox": [1, 2, 3]}, "its bbox is [1, 2, 3], and not x, y, width, height"),
        ({"segmentation": [[1, 2, 3]]}, "its segmentation is no list of polygons"),
        ({"segmentation": {"counts": [1], "size": [4, 8]}}, "run lengths of 1 pixels for a mask"),
        ({"segmentation": {"counts": "~", "size": [4, 8]}}, "'~' is no part of compressed"),
        ({"segmentation": {"counts": "a", "size": [4, 8]}}, "the compressed run lengths break off"),
        ({"segmentation": {"counts": [9], "size": [3, 3]}}, "its mask has 3 x 3 pixels, its image"),
    ],
)
def test_what_is_wrong_in_coco_is_reported_and_the_rest_is_read(
    item: dict[str, object], what: str, tmp_path: Path
) -> None:
    annotations = read_annotations(coco(tmp_path, item, {"bbox": [2, 1, 3, 2]}))
    assert instance_of(annotations).box == BOX
    (note,) = annotations.notes
    assert note.startswith(f"{tmp_path / 'instances.json'}, annotation 1: {what}")
    assert note.endswith("it is left out")


@pytest.mark.parametrize(
    ("objects", "what"),
    [
        (OBJECT.format("cat", 1, "two", 3, 4), "the bndbox of 'cat' is 1, two, 3, 4, no numbers"),
        ("<object><name>cat</name></object>", "'cat' has no xmin in a bndbox"),
        ("<object/>", "it has no name"),
    ],
)
def test_what_is_wrong_in_voc_is_reported_and_the_rest_is_read(
    objects: str, what: str, tmp_path: Path
) -> None:
    annotations = read_annotations(voc(tmp_path, objects + OBJECT.format("bird", 3, 2, 5, 3)))
    assert instance_of(annotations).box == BOX
    assert annotations.notes == (f"{tmp_path / 'bird.xml'}, object 1: {what}; it is left out",)


def test_a_broken_file_of_many_is_left_out(tmp_path: Path) -> None:
    voc(tmp_path)
    write(tmp_path / "a.xml", "<annotation>")
    write(tmp_path / "b.xml", "<svg/>")
    annotations = read_annotations(tmp_path)
    assert [p.name for p in annotations] == ["bird.jpg"]
    broken, other = annotations.notes
    assert "a.xml cannot be read: no element found" in broken
    assert "b.xml is no Pascal VOC file: it begins with <svg>, not <annotation>." in other


def test_entities_are_not_expanded(tmp_path: Path) -> None:
    secret = write(tmp_path / "secret.txt", "secret")
    for entity in ('"lol"', f'SYSTEM "{secret.as_uri()}"'):
        doctype = f"<!DOCTYPE annotation [<!ENTITY a {entity}>]>"
        text = VOC.format(objects=OBJECT.format("&a;", 3, 2, 5, 3))
        file = write(tmp_path / "x.xml", doctype + text)
        with pytest.raises(AnnotationError, match="it has a DOCTYPE"):
            read_annotations(file)


def test_xml_in_its_own_encoding(tmp_path: Path) -> None:
    file = tmp_path / "x.xml"
    text = VOC.format(objects=OBJECT.format("vögel", 3, 2, 5, 3))
    file.write_bytes(b'<?xml version="1.0" encoding="iso-8859-1"?>' + text.encode("iso-8859-1"))
    assert instance_of(read_annotations(file)).label == "vögel"


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("2 0 0 1 1", "there is no class 2: the names are of 2 classes"),
        ("-1 0 0 1 1", "'-1' is no class, a whole number from 0"),
        ("0 0 0 1", "it has 4 values, and is neither a box (5) nor a polygon"),
        ("0 0 0 x 1", "'x' is no number"),
    ],
)
def test_what_is_wrong_in_yolo_is_reported_and_the_rest_is_read(
    line: str, what: str, tmp_path: Path
) -> None:
    annotations = read_annotations(yolo(tmp_path, f"{line}\n\n1 {SHARES}\n"))
    assert instance_of(annotations).box == BOX
    assert annotations.notes == (f"{tmp_path / 'bird.txt'}, line 1: {what}; it is left out",)


def test_yolo_finds_names_above_and_labels_beside_pictures(tmp_path: Path) -> None:
    write(tmp_path / "data.yaml", "path: .\nval: images/val\nnames: {0: cat, 1: bird}\n")
    write(tmp_path / "labels" / "val" / "x" / "bird.txt", f"1 {SHARES}")
    for path in (tmp_path / "data.yaml", tmp_path / "labels" / "val"):
        annotations = read_annotations(path)
        assert annotations.labels == ("cat", "bird")
        assert annotations.pictures[0].name == "x/bird"
        assert instance_of(annotations).label == "bird"


def test_yolo_without_names_says_so(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b" / "c"
    write(folder / "bird.txt", f"1 {SHARES}")
    annotations = read_annotations(folder)
    assert instance_of(annotations).label == "1"
    (note,) = annotations.notes
    assert "has no data.yaml or classes.txt that names the classes" in note
    named = read_annotations(folder, names=write(tmp_path / "n.txt", "cat\nbird\n"))
    assert instance_of(named).label == "bird"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "is empty"),
        ("images,xmin,ymin,xmax,ymax\na,1,2,3,4", "has no column of pictures.* Closest: 'images'"),
        ("path,xmin,ymin\na,1,2", "has no columns of a box.*Name them xmin,ymin,xmax,ymax"),
    ],
)
def test_tables_without_what_is_needed(text: str, what: str, tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match=what):
        read_annotations(write(tmp_path / "t.csv", text))


def test_wrong_lines_of_a_table_are_left_out(tmp_path: Path) -> None:
    text = "path,xmin,ymin,xmax,ymax\na,1,2,3\nb,1,2,x,4\n,1,2,3,4\nbird.jpg,2,1,5,3\n"
    file = write(tmp_path / "t.csv", text)
    annotations = read_annotations(file)
    assert instance_of(annotations).box == BOX
    assert annotations.notes == (
        f"{file}, line 2: it has 4 values, and 5 are needed; it is left out",
        f"{file}, line 3: 'x' is no number; it is left out",
        f"{file}, line 4: it names no picture; it is left out",
    )


def test_cub_without_boxes_has_labels(tmp_path: Path) -> None:
    cub(tmp_path)
    (tmp_path / "bounding_boxes.txt").unlink()
    annotations = read_annotations(tmp_path)
    instance = instance_of(annotations)
    assert (instance.label, instance.box) == ("bird", None)
    (note,) = annotations.notes
    assert "bounding_boxes.txt is not there" in note


def test_boxes_outside_their_picture(tmp_path: Path) -> None:
    boxes = ([9, 0, 2, 2], [2, 1, 0, 2], [6, 1, 4, 2], [0, 0, 8.5, 4], [float("nan"), 0, 1, 1])
    annotations = read_annotations(coco(tmp_path, *({"bbox": box} for box in boxes)))
    placed, notes = annotations.pictures[0].in_pixels(SIZE)
    assert placed.boxes().tolist() == [[6, 1, 8, 3], [0, 0, 8, 4]]
    where = f"{tmp_path / 'instances.json'}, image 7: the box of 'bird', "
    assert notes == (
        f"{where}9, 0, 11, 2, lies outside its picture; it is left out",
        f"{where}2, 1, 2, 3, holds nothing; it is left out",
        f"{where}6, 1, 10, 3, reaches 2 pixels out of its picture of 8 x 4; it is cut at the edge",
        f"{where}nan, 0, nan, 1, has an edge that is no number; it is left out",
    )


def test_annotations_of_a_picture_of_another_size(tmp_path: Path) -> None:
    (picture,) = read_annotations(voc(tmp_path))
    with pytest.raises(
        UsageError, match="is of a picture of 8 x 4 pixels, and this one has 16 x 8"
    ):
        picture.in_pixels((8, 16))
    with pytest.raises(UsageError, match="turned by its EXIF orientation"):
        picture.in_pixels((8, 4))
    with pytest.raises(UsageError, match="have no size in pixels yet"):
        PictureAnnotations("a", (), unit="shares").masks()


def test_a_mask_of_another_size_than_its_picture_is_left_out() -> None:
    from camcli.media.annotations import Bitmap

    picture = PictureAnnotations("a", (Instance("cat", outline=Bitmap(MASK)),), where="m.png")
    placed, notes = picture.in_pixels((8, 8))
    assert placed.instances == ()
    assert notes == (
        "m.png: the mask of 'cat' has 8 x 4 pixels, and the picture 8 x 8; it is left out",
    )


@pytest.mark.parametrize(
    ("name", "text", "what"),
    [
        ("a.json", "{", "is no JSON"),
        ("a.json", "[]", "is no COCO file: it has no list 'images'"),
        ("a.json", '{"images": [], "annotations": [1], "categories": []}', "no list 'annotations'"),
        ("a.xml", "<a>", "cannot be read"),
        ("a.pdf", "", "is in no known format of annotations; known are coco"),
        ("images.txt", "1 a", "name the folder"),
        ("data.yaml", "names: 3", "no list, nor index to name"),
        ("data.yaml", "names: [a]\nval: images/x", "names 'images/x', and no folder of labels"),
        ("data.yaml", "- a", "is no data.yaml"),
        ("data.yaml", "a: [", "is no YAML"),
    ],
)
def test_files_that_are_no_annotations(name: str, text: str, what: str, tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match=what):
        read_annotations(write(tmp_path / name, text))


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match="There are no annotations"):
        read_annotations(tmp_path / "x.json")
    with pytest.raises(AnnotationError, match="holds no annotations; known are"):
        read_annotations(tmp_path)
    with pytest.raises(UnknownName, match="Closest: 'coco'"):
        read_annotations(tmp_path, "coc")
    for name in ("voc", "yolo", "masks", "imagefolder", "cub"):
        with pytest.raises(AnnotationError, match=r"holds no|cannot be read"):
            FORMATS[name].read(tmp_path, None)


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(AnnotationError, match="is no UTF-8 text"):
        read_annotations(tmp_path / "a.csv")


def test_formats_of_folders(tmp_path: Path) -> None:
    for number, (name, build) in enumerate({"voc": voc, "yolo": yolo, "cub": cub}.items()):
        folder = tmp_path / str(number)
        folder.mkdir()
        build(folder)
        assert find_format(folder) == name


def test_photos_in_folders_of_classes_are_no_masks_though_they_are_png(tmp_path: Path) -> None:
    photo = np.zeros((8, 8, 3), np.uint8)
    photo[..., 0] = 200
    for name in ("photos/cat/a.png", "photos/dog/b.png", "photos/dog/c.png", "flat/a.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photo).save(tmp_path / name)
    # one that is grey, and one that is torn
    Image.fromarray(photo[..., 1]).save(tmp_path / "photos/cat/grey.png")
    (tmp_path / "photos/dog/torn.png").write_bytes(b"")
    assert find_format(tmp_path / "photos") == "imagefolder"
    assert read_annotations(tmp_path / "photos").labels == ("cat", "dog")
    # of coloured masks the fault is told, as before
    assert find_format(tmp_path / "flat") == "masks"
    for name in ("masks/cat/a.png", "masks/dog/b.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(MASK).save(tmp_path / name)
    assert find_format(tmp_path / "masks") == "masks"
    assert read_annotations(tmp_path / "masks").labels == ("cat", "dog")


def test_a_pixel_belongs_to_a_box_that_holds_its_centre() -> None:
    assert draw_box(Box(0.5, 0, 2.5, 1), (1, 4)).tolist() == [[True, True, False, False]]
    assert not draw_box(Box(0.6, 0, 1.4, 1), (1, 4)).any()
