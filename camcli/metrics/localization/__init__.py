"""Whether the map lies on the object: metrics that need a box or a mask."""

# what other rooms may import; all else may change with this one
PUBLIC = (
    "box_iou",
    "components.find_components",
    "heat_inside",
    "pixel_average_precision",
    "pointing_game",
)
