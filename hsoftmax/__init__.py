"""Softmaxes over large output spaces. Nothing of it is imported before this module.

`Client` and `AsyncClient` ask a running service, `load` opens a bundle in this process. They are
imported at their first use (PEP 562): the command line does without them.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .client import AsyncClient, Client, ClientError, Job
    from .local_model import LocalModel, load
    from .models import UserError
    from .results import LabelPage, ModelInfo, Samples, TopK

# ONNX Runtime's official builds report to their maker, and keep an identifier in the user's cache,
# unless this stands in the environment before `import onnxruntime`. Child processes inherit it.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

_MODULES = {
    "AsyncClient": "client",
    "Client": "client",
    "ClientError": "client",
    "Job": "client",
    "LabelPage": "results",
    "LocalModel": "local_model",
    "ModelInfo": "results",
    "Samples": "results",
    "TopK": "results",
    "UserError": "models",
    "load": "local_model",
}

__all__ = [
    "AsyncClient",
    "Client",
    "ClientError",
    "Job",
    "LabelPage",
    "LocalModel",
    "ModelInfo",
    "Samples",
    "TopK",
    "UserError",
    "load",
]


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f".{_MODULES[name]}", __name__), name)
    except ModuleNotFoundError as error:
        missing_packages = import_module(".missing_packages", __name__)
        subject = f"{__name__}.{name}"
        extra = "client" if _MODULES[name] == "client" else ""
        sentence = missing_packages.missing(error.name or "", subject=subject, extra=extra)
        raise ModuleNotFoundError(sentence, name=error.name) from None
