"""Chooses the device of a process, and its native library. Nothing replaces them silently."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import TypeVar

import onnxruntime as ort

from hsoftmax.runtime.choices import NativeChoice
from hsoftmax.runtime.device_memory import DeviceMemory
from hsoftmax.runtime.devices import CUDA, ON_CPU, ON_CUDA, Device, DeviceChoice, DeviceError
from hsoftmax.runtime.native import NativeLibrary, load_library

from .arena import create_shared_arena
from .graph_file import OutOfDeviceMemory, opened_providers
from .thread_pool import create_thread_pool

T = TypeVar("T")


def choose_device(
    choice: DeviceChoice,
    threads: int,
    native: NativeChoice = "auto",
    gpu_memory: int | None = None,
) -> Device:
    """Return the requested device, and create the process's pool of `threads` threads.

    The pool is created first because no session opens without it, not even the test for CUDA.
    `gpu_memory` bounds the bytes of weights and runs on the device; the first call in a process
    that has it sets it.

    Raises:
        DeviceError: `cuda` or native kernels were requested but do not work; nothing replaces them
            silently.
    """
    create_thread_pool(threads)
    library = choose_native(native)
    instruction_set = library.instruction_set if library else ""
    cpu = replace(ON_CPU, instruction_set=instruction_set, threads=threads)
    if choice == "cpu":
        return cpu
    memory = None if gpu_memory is None else DeviceMemory(gpu_memory)
    problem = _cuda_problem(memory) if _has_provider() else _NO_PROVIDER
    if problem is None:
        fallback = cpu if choice == "auto" else None
        on_cuda = replace(ON_CUDA, providers=_limited_providers(memory), memory=memory)
        return replace(on_cuda, instruction_set=instruction_set, threads=threads, fallback=fallback)
    if choice == "cuda":
        raise DeviceError(f"device: expected cuda, got none: {problem}")
    if not _has_provider():
        return cpu
    return replace(cpu, fallback_cause="cuda_unavailable", fallback_reason=problem)


def with_fallback(device: Device, open_on: Callable[[Device], T]) -> T:
    """Return what `open_on` opens on the device, or on its fallback if memory does not suffice.

    Raises:
        OutOfDeviceMemory: it does not suffice, and the device has no fallback.
    """
    try:
        return open_on(device)
    except OutOfDeviceMemory as error:
        if device.fallback is None:
            raise
        reason = str(error)
    return open_on(replace(device.fallback, fallback_cause="out_of_memory", fallback_reason=reason))


def choose_native(choice: NativeChoice) -> NativeLibrary | None:
    """Return the native library if it is to be used. Raises DeviceError if `on` cannot be had."""
    library = load_library() if choice != "off" else "they are off"
    if choice == "on" and isinstance(library, str):
        raise DeviceError(f"native: expected the native library, got none: {library}")
    return library if isinstance(library, NativeLibrary) else None


_NO_PROVIDER = "this onnxruntime is built without it (the extra `service-cuda` brings one)"


def _has_provider() -> bool:
    return CUDA in ort.get_available_providers()


def _cuda_problem(memory: DeviceMemory | None) -> str | None:
    """Return the reason why CUDA cannot be used, or None if it can."""
    with suppress(Exception):
        ort.preload_dlls()
    try:
        if CUDA not in opened_providers(ON_CUDA.providers):
            return "its libraries or its driver do not load"
        if memory is not None:
            create_shared_arena(memory.run_bytes)
    except Exception as error:
        return str(error).splitlines()[0]
    return None


def _limited_providers(memory: DeviceMemory | None) -> tuple[object, ...]:
    """Return the providers of CUDA; each session's own arena has the limit of the shared one."""
    if memory is None:
        return ON_CUDA.providers
    (name, options), *others = ON_CUDA.providers
    return ((name, {**options, "gpu_mem_limit": str(memory.run_bytes)}), *others)
