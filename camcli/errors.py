"""Every error that a user can meet.

CamvizError
├── UsageError              exit code 2: the command has to change
│   ├── UnknownName         a model, layer, method, category, key or topic nobody has heard of
│   ├── ConfigError         a preset or --cfg-options with a wrong key or value
│   ├── SourceError         an input that is not there, or a folder without images
│   ├── AnnotationError     boxes, masks or labels that cannot be read as a whole
│   ├── DeviceError         a device that this machine does not have
│   ├── ModelError          a model that cannot be built or used
│   │   ├── CheckpointError a checkpoint that cannot be used
│   │   └── WeightsError    pretrained weights that cannot be fetched
│   ├── LayerError          a layer that cannot be a target
│   ├── MethodError         a method that is not defined for this model or these options
│   └── OutputError         a place that cannot be written to
├── ImageError              exit code 1: a picture that cannot be read, or held by its format, or
│                           named so where it is to be written
├── PrintError              exit code 1: standard output takes no more
└── TooManyFailures         exit code 1: as many pictures failed as --max-failures allows, and one
"""

from collections.abc import Iterable
from difflib import get_close_matches

EXIT_FAILED_IMAGES = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130
SHORTEST_BEGINNING = 3  # letters that say which names are meant


class CamvizError(Exception):
    """An error with a message for a person: what, what was given, what next."""

    exit_code = EXIT_USAGE


class CamvizWarning(UserWarning):
    """What a person should know of a result that is given all the same."""


class UsageError(CamvizError):
    """A command that cannot be carried out as it was typed."""


class UnknownName(UsageError):
    """A name that is not among the known ones; the message offers the closest."""

    def __init__(self, kind: str, given: str, known: Iterable[str], hint: str = "") -> None:
        self.kind, self.given = kind, given
        self.closest = find_closest(given, known)
        near = f" Closest: {', '.join(map(repr, self.closest))}." if self.closest else ""
        super().__init__(f"Unknown {kind} {given!r}.{near}{' ' + hint if hint else ''}")


class ConfigError(UsageError):
    """A preset or option with a wrong key or value."""


class SourceError(UsageError):
    """An input that is not there, or holds no images."""


class AnnotationError(UsageError):
    """Boxes, masks or labels that cannot be read as a whole."""


class DeviceError(UsageError):
    """A device that this machine does not have."""


class ModelError(UsageError):
    """A model that cannot be built, or gives what camviz cannot explain."""


class CheckpointError(ModelError):
    """A checkpoint that cannot be used."""


class WeightsError(ModelError):
    """Pretrained weights that cannot be fetched."""


class LayerError(UsageError):
    """A layer that cannot be a target: no spatial grid, or not part of the forward pass."""


class MethodError(UsageError):
    """A method that is not defined for this model or with these options."""


class OutputError(UsageError):
    """A place that cannot be written to."""


class ImageError(CamvizError):
    """A file that is no readable image, or a picture that its format, or its name, cannot hold."""

    exit_code = EXIT_FAILED_IMAGES


class PrintError(CamvizError):
    """Results that standard output does not take."""

    exit_code = EXIT_FAILED_IMAGES


class TooManyFailures(CamvizError):
    """More pictures failed than a run puts up with."""

    exit_code = EXIT_FAILED_IMAGES


def find_closest(given: str, known: Iterable[str], most: int = 3) -> list[str]:
    """Returns the known names most like the given one, best first, without regard to case.

    Names that begin with what was given come first, the shortest of them before the others.
    """
    by_lower = {name.lower(): name for name in known}
    word = given.lower()
    longer = [
        name for name in by_lower if name.startswith(word) and len(word) >= SHORTEST_BEGINNING
    ]
    near = get_close_matches(word, by_lower, n=most, cutoff=0.55)
    return [by_lower[name] for name in dict.fromkeys([*sorted(longer, key=len), *near])][:most]


def first_line(error: BaseException | str) -> str:
    """Returns the first line of an error's text that tells something, at most 200 characters."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # "Error(s) in loading state_dict for ResNet:" says less than the line below it
    telling = [line for line in lines if not line.endswith(":")]
    return (telling or lines)[0][:200].rstrip(".:!") if lines else type(error).__name__
