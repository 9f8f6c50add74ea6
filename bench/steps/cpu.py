"""What makes arithmetic on a CPU slow for no reason? Two settings of the process, made when this is imported.

Activations of a batch are freed and asked for again at every step. glibc hands blocks of their size back to the
system at once, and the system zeroes every page of them anew: narrow networks train 1.4 to 1.9 times as fast, and
answer up to 2.7 times as fast, when freed memory stays with the process (`pytest tests/benchmarks -k memory`).
"""

from __future__ import annotations

import ctypes

import torch

__all__ = ["keep_freed_memory"]

# Parameters of mallopt(3).
M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4


def keep_freed_memory() -> bool:
    """Let the C library keep freed memory for the next allocation; false where it is not glibc."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, 2**31 - 1))


# Denormal numbers, which saturated networks are full of, make CPU arithmetic many times slower.
torch.set_flush_denormal(True)
keep_freed_memory()
