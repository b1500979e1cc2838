"""Several heatmaps in one figure: which stands where, and its files."""

# what other rooms may import; all else may change with this one
PUBLIC = (
    "arrangement.arrange",
    "arrangement.describe_class",
    "explanations.Explanations",
    "items.SheetItem",
    "items.cut_legend",
    "items.make_record_bar",
    "notebook.describe",
    "notebook.make_html",
    "notebook.make_png",
    "run_sheet.DrawnSheet",
    "run_sheet.check_run_sheet",
    "run_sheet.draw_run_sheet",
    "sheet.Sheet",
)
