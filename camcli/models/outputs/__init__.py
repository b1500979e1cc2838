"""What a model's output means: its logits, values and rows."""

# what other rooms may import; all else may change with this one
PUBLIC = (
    "likeness.Comparison",
    "likeness.embed",
    "likeness.find_classifier_layer",
    "folded_batch.count_slices",
    "interpretation.Link",
    "interpretation.OutputReading",
    "interpretation.apply_output_reading",
    "interpretation.check_outputs_meaning",
    "interpretation.compute_log_probabilities",
    "interpretation.declare_reading",
    "interpretation.find_output_reading",
    "interpretation.measure_output",
    "interpretation.read_as_logit",
    "interpretation.takes_one_alone",
    "logits.LOGITS",
    "logits.OutputKey",
    "logits.describe_output",
    "logits.select_output",
)
