"""Softmaxes over large output spaces. Nothing of it is imported before this module."""

import os

# ONNX Runtime's official builds report to their maker, and keep an identifier in the user's cache,
# unless this stands in the environment before `import onnxruntime`. Child processes inherit it.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
