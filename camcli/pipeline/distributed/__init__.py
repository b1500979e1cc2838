"""One run by several processes: shares of the sources, and Ray."""

# what other rooms may import; all else may change with this one
PUBLIC = (
    "ray_backend.WorkerStart",
    "ray_backend.run_on_ray",
    "ray_evaluation.measure_on_ray",
    "sharding",
    "sharding.choose_device",
    "sharding.count_local_processes",
    "sharding.find_shard",
    "sharding.take_share",
)
