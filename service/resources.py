"""Memory and cores of this process: what it holds, what it may use, and what it gives back.

Metrics, the repository and the settings call these functions.
"""

import ctypes
import gc
import os
from contextlib import suppress
from pathlib import Path

_STATUS = Path("/proc/self/status")
_KINDS = {"RssAnon": "anonymous", "RssFile": "file", "RssShmem": "shared"}


def resident_bytes() -> dict[str, int]:
    """Resident memory by kind; empty where there is no /proc.

    Weights are mapped files, so they count as `file`, which processes share.
    """
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:  # not Linux
        return {}
    fields = (line.partition(":") for line in lines)
    return {
        _KINDS[name]: int(value.split()[0]) * 1024 for name, _, value in fields if name in _KINDS
    }


def trim_heap() -> None:
    """Return the allocator's free pages to the system, which glibc otherwise keeps."""
    with suppress(OSError, AttributeError):  # only glibc has malloc_trim
        ctypes.CDLL(None).malloc_trim(0)


def freeze_gc() -> None:
    """Exclude all current objects from garbage collection.

    A full collection of them takes tens of milliseconds.
    """
    gc.collect()
    gc.freeze()


CGROUP = Path("/sys/fs/cgroup")


def available_cores(cgroup: Path = CGROUP) -> int:
    """Cores that this process may use, by affinity and cgroup quota.

    At least one, at most the cores that this process may be scheduled on.
    """
    cores = len(os.sched_getaffinity(0))
    quota = _quota(cgroup)
    return cores if quota is None else max(1, min(cores, int(quota)))


def _quota(cgroup: Path) -> float | None:
    """Cores that the cgroup (v2, then v1) allows, or None without a limit."""
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
    except (OSError, ValueError):
        return _quota_v1(cgroup / "cpu")
    return None if quota == "max" else int(quota) / int(period)


def _quota_v1(cpu: Path) -> float | None:
    try:
        quota = int((cpu / "cpu.cfs_quota_us").read_text())
        period = int((cpu / "cpu.cfs_period_us").read_text())
    except (OSError, ValueError):
        return None
    return quota / period if quota > 0 else None
