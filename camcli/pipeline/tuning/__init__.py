"""Searches the best methods, layers and combinations for a user's own pictures."""

# what other rooms may import; all else may change with this one
PUBLIC = (
    "preset.check_place",
    "preset.write_preset",
    "report.HeldMetric",
    "report.compare_held",
    "report.describe_score",
    "report.describe_search",
    "report.list_verdicts",
    "report.name_contenders",
    "report.summarise",
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
