"""Whether the map lies on the object: metrics that need a box or a mask."""

# what other rooms may import; all else may change with this one
PUBLIC = (
    "box_iou",
    "components.find_components",
    "grid_pointing_game",
    "grid_pointing_game.build_grid",
    "heat_inside",
    "max_box_accuracy",
    "max_box_accuracy.IOUS",
    "pixel_average_precision",
    "pointing_game",
)
