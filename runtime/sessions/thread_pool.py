"""The pool of threads of a process that serves, and the options of sessions with and without it.

ONNX Runtime refuses sessions with threads of their own once a process has a pool.
"""

from contextlib import suppress
from functools import lru_cache

import onnxruntime as ort


@lru_cache(maxsize=1)
def create_thread_pool(threads: int) -> None:
    """Create the pool of the process, once; its first caller sets the size."""
    with suppress(Exception):
        ort.set_global_thread_pool_sizes(threads, 1)


def has_thread_pool() -> bool:
    """Return True if this process has a pool. Then no session may have threads of its own."""
    return create_thread_pool.cache_info().currsize > 0


def shared_pool_options() -> ort.SessionOptions:
    """Return the options of a session that uses the pool of the process."""
    options = ort.SessionOptions()
    options.use_per_session_threads = False
    # An arena keeps the memory of the largest batch; a memory pattern reserves each block twice.
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    return options


def use_single_thread(options: ort.SessionOptions) -> None:
    """Set the options so that a run uses one thread, unless the process has a pool."""
    options.use_per_session_threads = not has_thread_pool()
    if options.use_per_session_threads:
        options.intra_op_num_threads = options.inter_op_num_threads = 1
