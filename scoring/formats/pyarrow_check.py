"""Checks that pyarrow, which is an optional dependency, is installed.

Callers raise their own error: a missing package is a failed job, or one of two HTTP statuses.
"""


def has_pyarrow() -> bool:
    """True if pyarrow can be imported."""
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        return False
    return True
