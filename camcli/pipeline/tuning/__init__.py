"""Searches the best methods, layers and combinations for a user's own pictures."""

# what other rooms may import; all else may change with this one
PUBLIC = (
    "preset.check_place",
    "preset.write_preset",
    "search_report.HeldMetric",
    "search_report.compare_held",
    "search_report.describe_score",
    "search_report.describe_search",
    "search_report.list_verdicts",
    "search_report.name_contenders",
    "search_report.summarise",
    "schedule.BUDGET",
    "schedule.make_schedule",
    "search.SearchStep",
    "search.TuningResult",
    "search.check_count",
    "search.tune",
    "tuning_plan.TuningPlan",
    "tuning_plan.check_options",
    "tuning_plan.plan_tuning",
)
