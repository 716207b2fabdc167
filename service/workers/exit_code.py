"""Reads the exit code of a process that ended."""

import signal


def signal_name(code: int) -> str | None:
    """The name of the signal that ended a process with this exit code, or None."""
    if code >= 0:
        return None
    try:
        return signal.Signals(-code).name
    except ValueError:  # a real-time signal, which has no name
        return str(-code)
