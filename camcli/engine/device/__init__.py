"""What passes need to know about a device: its memory, its clock, its precision."""

# what other rooms may import; all else may change with this one
PUBLIC = (
    "batch_size.find_largest_batch",
    "device_timer.DeviceTimer",
    "device_transfer.send_to_device",
    "oom_chunks.is_out_of_memory",
    "oom_chunks.run_in_chunks",
    "pass_watch.watch_passes",
    "precision.choose_precision",
    "precision.is_emulated",
    "precision.use_precision",
)
