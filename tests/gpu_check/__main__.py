"""Checks and times the graphs for CUDA: python -m gpu_check, in the folder of the archive.

It needs NumPy and ONNX Runtime alone, ends within --minutes, and exits with 1 if something is wrong
or was left out.
"""

import argparse
from pathlib import Path

from .bundles import StoredBundle, read_bundles
from .device import CheckedDevice, facts, problem
from .numbers import Repeats, check_bundle
from .speed import Shape, copy_bandwidth, time_tasks
from .table import Table

_COPIED_NUMBERS = {"cuda": 1 << 28, "cpu": 1 << 22}
_TIMED_BUNDLE = "equal_blocks-fp32"


def main() -> int:
    options = _options()
    table = Table(options.minutes * 60)
    for fact in facts():
        print(fact)
    missing = problem(options.device)
    if missing is not None:
        print(f"cannot run: {missing}")
        return 1
    device = CheckedDevice(options.device)
    bundles = list(read_bundles(options.folder / "bundles"))
    table.row("bundle", "task", "result", "details")
    for bundle in bundles:
        check_bundle(bundle, device, Repeats(options.repeats, options.threads), table)
    if not options.numbers_only:
        _time(options, device, bundles, table)
    print(f"{table.failed} wrong, {table.left_out} left out")
    return int(table.failed > 0 or table.left_out > 0)


def _time(
    options: argparse.Namespace, device: CheckedDevice, bundles: list[StoredBundle], table: Table
) -> None:
    """Add the rows of times; whatever stops them is a row, too."""
    batches = tuple(int(rows) for rows in options.batches.split(","))
    shape = Shape(options.clusters, options.block, options.hidden, batches, options.seconds)
    [timed] = [bundle for bundle in bundles if bundle.name == _TIMED_BUNDLE]
    try:
        numbers = _COPIED_NUMBERS[device.name]
        bandwidth = copy_bandwidth(device, options.folder / "copy.onnx", numbers, options.seconds)
        table.row("copy on the device", "", f"{bandwidth / 1e9:.0f} GB/s", "read and written")
        time_tasks(shape, timed.lowered_graphs, device, bandwidth, table)
    except Exception as error:
        reason = f"{type(error).__name__}: {str(error).splitlines()[0][:160]}"
        table.row("times", "", "STOPPED", reason, ok=False)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="gpu_check", description=__doc__)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--folder", type=Path, default=Path(__file__).parents[1])
    parser.add_argument("--minutes", type=float, default=9.5)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--clusters", type=int, default=1000)
    parser.add_argument("--block", type=int, default=1000)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--batches", default="1,8,64,128,256,1024,4096")
    parser.add_argument("--seconds", type=float, default=0.5, help="of each time")
    parser.add_argument("--numbers-only", action="store_true", help="no times")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
