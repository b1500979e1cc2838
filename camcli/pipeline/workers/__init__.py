"""Threads and processes beside the model, and the memory that pictures in flight may take."""

# what other rooms may import; all else may change with this one
PUBLIC = (
    "memory_budget.FOR_FILES",
    "memory_budget.MemoryBudget",
    "memory_budget.Need",
    "memory_budget.resolve_memory",
    "process_work.ProcessWork",
    "process_work.check_can_fork",
    "read_ahead.read_ahead",
    "thread_work.ThreadWork",
    "worker_pool.WorkLine",
    "worker_pool.WorkerPool",
    "worker_pool.default_workers",
    "worker_pool.start_workers",
    "worker_pool.wait_for_any",
)
