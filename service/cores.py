"""How many cores this process may really use: its affinity, cut to the cgroup's CPU quota."""

import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def available_cores(cgroup: Path = CGROUP) -> int:
    """At least one, at most the cores this process may be scheduled on."""
    cores = len(os.sched_getaffinity(0))
    quota = _quota(cgroup)
    return cores if quota is None else max(1, min(cores, int(quota)))


def _quota(cgroup: Path) -> float | None:
    """Cores' worth of time that the cgroup (v2, then v1) allows, None where it sets no limit."""
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
