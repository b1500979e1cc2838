"""Boxes, masks and labels of pictures, in the formats that people have them in."""

from camcli.media.annotations.formats import FORMATS, find_format, read_annotations
from camcli.media.annotations.matching import Matches, match_pictures
from camcli.media.annotations.outlines import Bitmap, Polygons, RunLengths
from camcli.media.annotations.values import Annotations, Instance, PictureAnnotations

__all__ = [
    "FORMATS",
    "Annotations",
    "Bitmap",
    "Instance",
    "Matches",
    "PictureAnnotations",
    "Polygons",
    "RunLengths",
    "find_format",
    "match_pictures",
    "read_annotations",
]
