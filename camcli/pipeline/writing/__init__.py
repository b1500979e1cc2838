"""Writes the outputs of a run: checks, files and videos, and the common scale."""

# what other rooms may import; all else may change with this one
PUBLIC = (
    "box_export.export_boxes",
    "color_scale.ColorScales",
    "color_scale.Key",
    "color_scale.read_scales",
    "output_checks.check_outputs",
    "output_checks.warn_of_letters",
    "output_naming.digest_shared_options",
    "output_writer.OutputWriter",
    "output_writer.describe_failure",
    "output_writer.find_source",
    "spool.Spool",
    "spool.read_again",
    "spool.restore_pixels",
    "terminal_output.draw_file",
    "video_outputs.DrawnFrame",
    "video_outputs.FrameWriter",
    "video_outputs.VideoOutputs",
)
