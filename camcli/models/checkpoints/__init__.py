"""Files of weights, and how their names are matched to a model's."""

# what other rooms may import; all else may change with this one
PUBLIC = (
    "checkpoint.Checkpoint",
    "checkpoint.is_transformers_folder",
    "checkpoint.read_checkpoint",
    "cross_library_keys",
    "mismatch_advice",
    "pickle_survey.check_published",
    "state_dict_matching",
    "training_args.TrainingArgs",
    "training_args.apply_training_args",
    "weight_loading",
)
