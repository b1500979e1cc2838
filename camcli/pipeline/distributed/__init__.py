"""One run by several processes: who has which sources, and Ray."""

# what other rooms may import; all else may change with this one
PUBLIC = (
    "ray_backend.WorkerStart",
    "ray_backend.run_on_ray",
    "sharding",
    "sharding.count_local_processes",
)
