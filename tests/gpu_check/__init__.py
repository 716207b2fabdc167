"""Checks and times the graphs for CUDA on a machine with a GPU that reaches no package registry.

`make gpu-check` makes an archive of bundles with reference numbers (`cases`, `archive`) and of the
other modules of this folder, which need NumPy and ONNX Runtime alone. docs/performance-cuda.md says
how to use it.
"""
