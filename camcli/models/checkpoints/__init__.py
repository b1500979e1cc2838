"""Files of weights, and how their names are matched to a model's."""

from camcli.models.checkpoints.blank_weights import build_blank, draw_what_is_missing
from camcli.models.checkpoints.checkpoint import (
    Checkpoint,
    is_transformers_folder,
    read_checkpoint,
)
from camcli.models.checkpoints.classes_and_channels import build_for_checkpoint
from camcli.models.checkpoints.cross_library_keys import find_counterpart
from camcli.models.checkpoints.mismatch_advice import other_library_error
from camcli.models.checkpoints.pickle_survey import check_published
from camcli.models.checkpoints.state_dict_matching import FittedWeights, select_fitting_weights
from camcli.models.checkpoints.training_args import TrainingArgs, apply_training_args
from camcli.models.checkpoints.transformers_twins import (
    align_eps,
    carry_weights_between,
    computes_the_same,
    other_outputs_error,
)
from camcli.models.checkpoints.weight_loading import (
    carry_weights_over,
    copy_weights,
    load_into,
    place_weights_by_order,
)

__all__ = [
    "Checkpoint",
    "FittedWeights",
    "TrainingArgs",
    "align_eps",
    "apply_training_args",
    "build_blank",
    "build_for_checkpoint",
    "carry_weights_between",
    "carry_weights_over",
    "check_published",
    "computes_the_same",
    "copy_weights",
    "draw_what_is_missing",
    "find_counterpart",
    "is_transformers_folder",
    "load_into",
    "other_library_error",
    "other_outputs_error",
    "place_weights_by_order",
    "read_checkpoint",
    "select_fitting_weights",
]
