"""Heat in colour, and laid on the picture."""

# what other rooms may import; all else may change with this one
PUBLIC = (
    "boxes.HotRegions",
    "boxes.NO_REGIONS",
    "boxes.find_regions",
    "charts.Bar",
    "charts.BarPanel",
    "charts.HOW_TO_INSTALL",
    "charts.Line",
    "charts.LinePanel",
    "charts.can_draw_charts",
    "charts.draw_bars",
    "charts.draw_curves",
    "charts.save_chart",
    "colormap.ColormapLike",
    "colormap.find_colormap",
    "concepts.make_palette",
    "concepts.overlay_concepts",
    "overlay",
    "overlay.Scale",
    "pixels.draw_on_grey",
    "sheet.draw_sheet",
)
