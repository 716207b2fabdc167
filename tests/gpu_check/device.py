"""The device of a check: what is there, and the sessions that run on it."""

import platform
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnxruntime as ort

from hsoftmax.runtime.cuda import SUFFIX, DeviceType
from hsoftmax.runtime.devices import CPU, CUDA, ON_CUDA


@dataclass(frozen=True)
class CheckedDevice:
    """CUDA, or the CPU for a trial of the check."""

    name: DeviceType

    def open(self, graph: Path, *, on_device: bool = True) -> ort.InferenceSession:
        """Open a graph with the options of the service."""
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.enable_mem_reuse = False
        options.add_session_config_entry("session.disable_prepacking", "1")
        is_cuda = self.name == "cuda" and on_device
        providers = list(ON_CUDA.providers) if is_cuda else [CPU]
        session = ort.InferenceSession(str(graph), options, providers=providers)
        if is_cuda and CUDA not in session.get_providers():
            raise SystemExit(f"{graph.name}: expected {CUDA}, got {session.get_providers()}")
        return session

    def open_all(self, graphs: list[Path]) -> Mapping[str, ort.InferenceSession]:
        """Open graphs for CUDA, by their names without the suffix."""
        return {graph.name.removesuffix(SUFFIX): self.open(graph) for graph in graphs}


def facts() -> Iterator[str]:
    """Yield a line for each thing that matters, present or missing."""
    yield f"Python {platform.python_version()}, NumPy {np.__version__}, {platform.platform()}"
    yield f"ONNX Runtime {ort.__version__}, providers {', '.join(ort.get_available_providers())}"
    torch = "installed" if find_spec("torch") else "missing: no comparison with PyTorch"
    yield f"PyTorch {torch}"
    yield f"card {_card()}"


def problem(name: DeviceType) -> str | None:
    """Return why the check cannot run on this device, and what to do, or None if it can."""
    if name == "cpu":
        return None
    if CUDA not in ort.get_available_providers():
        return f"onnxruntime: expected {CUDA}, got none: pip install onnxruntime-gpu"
    with suppress(Exception):
        ort.preload_dlls()
    return None


def _card() -> str:
    """Return the name, the memory and the driver of each card."""
    if shutil.which("nvidia-smi") is None:
        return "unknown: nvidia-smi is missing"
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    done = subprocess.run(query, capture_output=True, text=True, check=False, timeout=60)
    return " / ".join((done.stdout or done.stderr).split("\n")).strip(" /")
