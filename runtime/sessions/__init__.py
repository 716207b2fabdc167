"""Opens ONNX Runtime sessions, with the options that each caller needs.

    choose_device               the device of the process, and its pool of threads
    with_fallback               the CPU in place of a device whose memory does not suffice
    open_sessions               the service: one thread pool for all sessions of the process
    open_session                verification and benchmarks: a thread pool per session
    open_lowered                the graphs for CUDA, on the device or, for verification, on the CPU
    open_single_thread_session  batch scoring on the command line: several runs in parallel
    open_encoder_session        the encoder of a bundle, in the service and for one run at a time

`open_sessions` and `open_single_thread_session` add the native kernel of a task that has one.
"""

from .device_choice import choose_device, choose_native, with_fallback
from .encoder_session import ENCODER, open_encoder_session
from .graph_file import OutOfDeviceMemory, open_session
from .lowered import open_lowered
from .session import Feeds, InputOrOutput, RunOptions, Session
from .task_sessions import open_sessions, open_single_thread_session

__all__ = [
    "ENCODER",
    "Feeds",
    "InputOrOutput",
    "OutOfDeviceMemory",
    "RunOptions",
    "Session",
    "choose_device",
    "choose_native",
    "open_encoder_session",
    "open_lowered",
    "open_session",
    "open_sessions",
    "open_single_thread_session",
    "with_fallback",
]
