"""What this process keeps in memory, and giving back what it no longer needs."""

import ctypes
import gc
from contextlib import suppress
from pathlib import Path

_STATUS = Path("/proc/self/status")
_KINDS = {"RssAnon": "anonymous", "RssFile": "file", "RssShmem": "shared"}


def resident_bytes() -> dict[str, int]:
    """Resident memory by kind; weights are mapped files, and those are shared between processes."""
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:  # not Linux
        return {}
    fields = (line.partition(":") for line in lines)
    return {
        _KINDS[name]: int(value.split()[0]) * 1024 for name, _, value in fields if name in _KINDS
    }


def give_back() -> None:
    """Let the allocator return free pages, which it would otherwise keep for later."""
    with suppress(OSError, AttributeError):  # glibc's; others have no such thing
        ctypes.CDLL(None).malloc_trim(0)


def keep_for_good() -> None:
    """Spare the collector what is there now; to look through it takes tens of milliseconds."""
    gc.collect()
    gc.freeze()
