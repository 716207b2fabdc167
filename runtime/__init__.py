"""Opens ONNX Runtime sessions and chooses the device that they run on."""
