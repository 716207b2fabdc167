"""Runs graphs: the one place that opens ONNX Runtime sessions and chooses where they run."""
