"""`hsoftmax bench`: the machine's own numbers for a bundle."""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import click

from hsoftmax.options import check_hashes, choice
from hsoftmax.runtime.choices import NativeChoice
from hsoftmax.runtime.devices import DeviceChoice

if TYPE_CHECKING:
    from hsoftmax.benchmark import Measurement


@click.command("bench")
@click.argument("path", metavar="BUNDLE", type=click.Path(path_type=Path))
@click.option("--batch", "batches", type=click.IntRange(min=1), multiple=True, default=(1, 16, 256))
@click.option("--seconds", type=click.FloatRange(min=0), default=0.5, show_default=True)
@click.option(
    "--threads", type=click.IntRange(min=1), help="Default: all that this machine allows."
)
@choice("--device", among=get_args(DeviceChoice), help="Where graphs run; auto is cuda, else cpu.")
@choice(
    "--native",
    among=get_args(NativeChoice),
    help="Native kernels: where they are installed, always, or never.",
)
@check_hashes
@click.option("--json", "as_json", is_flag=True, help="The figures as JSON.")
def command(
    path: Path,
    batches: tuple[int, ...],
    seconds: float,
    threads: int | None,
    device: str,
    native: NativeChoice,
    check_hashes: bool,
    as_json: bool,
) -> None:
    """Time every task of BUNDLE, on random rows with one random target each."""
    from hsoftmax.benchmark import measure
    from hsoftmax.bundle import open_bundle
    from hsoftmax.latest_version import latest_version
    from hsoftmax.runtime.sessions import choose_device, open_sessions, with_fallback
    from hsoftmax.service.settings import Settings

    opened = open_bundle(latest_version(path), check_hashes=check_hashes)
    settings = Settings.model_validate(
        {"repository": path, "device": device} | ({"threads": threads} if threads else {})
    )
    chosen, sessions = with_fallback(
        choose_device(settings.device, settings.threads, native),
        lambda device: (device, open_sessions(opened, device)),
    )
    found = list(measure(opened.manifest, sessions, batches=batches, seconds=seconds))
    machine = f"{_processor()}, {settings.threads} threads, {chosen.description}"
    if as_json:
        click.echo(json.dumps({"machine": machine, "measured": [m.as_json() for m in found]}))
    else:
        _print_table(machine, found)


def _print_table(machine: str, found: list[Measurement]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=machine, title_justify="left")
    for heading in ("task", "rows", "ms", "µs a row", "rows/s"):
        table.add_column(heading, justify="left" if heading == "task" else "right")
    for m in found:
        a_row = m.milliseconds / m.rows * 1e3
        table.add_row(
            m.task,
            f"{m.rows}",
            f"{m.milliseconds:.3f}",
            f"{a_row:.1f}",
            f"{m.rows_per_second:,.0f}",
        )
    Console().print(table)


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
