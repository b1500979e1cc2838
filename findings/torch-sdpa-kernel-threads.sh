#!/bin/sh
# torch.nn.attention.sdpa_kernel, a context manager, sets a switch of the whole process: inside of it
# the attention of every other thread takes its backend, too.  Where two threads overlap, the first
# one's backend stays switched on for good: the second one restores what it saw when it came.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.14.1 numpy==2.4.6
KINETO_LOG_LEVEL=99 "$folder/venv/bin/python" -W ignore - <<'PYTHON'
import sys
import threading

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

print("torch", torch.__version__)


def find_backend() -> str:
    """Names the kernel that this thread's attention runs."""
    query = torch.rand(1, 2, 16, 8)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        scaled_dot_product_attention(query, query, query)
    names = {event.key for event in profile.key_averages()}
    (kernel,) = names & {
        "aten::_scaled_dot_product_flash_attention_for_cpu",
        "aten::_scaled_dot_product_attention_math",
    }
    return "math" if kernel.endswith("math") else "flash"


def enter(entered: threading.Event, leave: threading.Event) -> None:
    with sdpa_kernel(SDPBackend.MATH):
        entered.set()
        leave.wait()


seen = [find_backend()]
threads, leaving = [], []
for _ in range(2):
    entered, leave = threading.Event(), threading.Event()
    thread = threading.Thread(target=enter, args=(entered, leave))
    thread.start()
    entered.wait()
    threads.append(thread)
    leaving.append(leave)
    if len(threads) == 1:
        seen.append(find_backend())
for thread, leave in zip(threads, leaving):
    leave.set()
    thread.join()
seen.append(find_backend())
print("the main thread's attention: before, while others are inside, after they have left")
print(f"expected flash, flash, flash; seen {', '.join(seen)}")
sys.exit(0 if seen == ["flash", "math", "math"] else 1)
PYTHON
