"""The arena from which all sessions of a device draw the memory of their runs.

Without one, each session has its own, so that a limit would hold for each alone. It is reserved
whole at the first run: in one region, freed parts join again, and nothing else takes the memory
that requests will need.
"""

from functools import lru_cache

import onnxruntime as ort

from hsoftmax.runtime.devices import CUDA

_DOUBLING = 0  # the strategy of ONNX Runtime that heeds the size of the first region
_DEVICE_ID = 0


@lru_cache(maxsize=1)
def create_shared_arena(num_bytes: int) -> None:
    """Register the arena of the process, once; its first caller sets the size."""
    place = ort.OrtMemoryInfo(
        "Cuda", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, _DEVICE_ID, ort.OrtMemType.DEFAULT
    )
    sizes = {
        "max_mem": num_bytes,
        "initial_chunk_size_bytes": num_bytes,
        "arena_extend_strategy": _DOUBLING,
    }
    ort.create_and_register_allocator_v2(CUDA, place, {}, ort.OrtArenaCfg(sizes))


def use_shared_arena(options: ort.SessionOptions) -> None:
    """Set the options so that runs use the arena, and weights take their memory beside it."""
    options.add_session_config_entry("session.use_env_allocators", "1")
    options.add_session_config_entry("session.use_device_allocator_for_initializers", "1")
