"""The command `hsoftmax`."""
