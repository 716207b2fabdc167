"""Chooses the device of a process, and its native library. Nothing replaces them silently."""

from contextlib import suppress
from dataclasses import replace

import onnxruntime as ort

from hsoftmax.runtime.choices import NativeChoice
from hsoftmax.runtime.devices import CUDA, ON_CPU, ON_CUDA, Device, DeviceChoice, DeviceError
from hsoftmax.runtime.native import NativeLibrary, load_library

from .graph_file import opened_providers
from .thread_pool import create_thread_pool


def choose_device(choice: DeviceChoice, threads: int, native: NativeChoice = "auto") -> Device:
    """Return the requested device, and create the process's pool of `threads` threads.

    The pool is created first because no session opens without it, not even the test for CUDA.

    Raises:
        DeviceError: `cuda` or native kernels were requested but do not work; nothing replaces them
            silently.
    """
    create_thread_pool(threads)
    device = ON_CPU
    if choice != "cpu":
        problem = _cuda_problem()
        if problem is None:
            device = ON_CUDA
        elif choice == "cuda":
            raise DeviceError(f"device: expected cuda, got none: {problem}")
    library = choose_native(native)
    instruction_set = library.instruction_set if library else ""
    return replace(device, instruction_set=instruction_set, threads=threads)


def choose_native(choice: NativeChoice) -> NativeLibrary | None:
    """Return the native library if it is to be used. Raises DeviceError if `on` cannot be had."""
    library = load_library() if choice != "off" else "they are off"
    if choice == "on" and isinstance(library, str):
        raise DeviceError(f"native: expected the native library, got none: {library}")
    return library if isinstance(library, NativeLibrary) else None


def _cuda_problem() -> str | None:
    """Return the reason why CUDA cannot be used, or None if it can."""
    if CUDA not in ort.get_available_providers():
        return "this onnxruntime is built without it (the extra `service-cuda` brings one)"
    with suppress(Exception):
        ort.preload_dlls()
    try:
        providers = opened_providers(ON_CUDA.providers)
    except Exception as error:
        return str(error).splitlines()[0]
    return None if CUDA in providers else "its libraries or its driver do not load"
