"""`hsoftmax inspect`: what a bundle is, what computes its tasks on this machine, its hierarchy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hsoftmax.options import check_hashes

if TYPE_CHECKING:
    from hsoftmax import bundle

_MAX_LINE_CHARS = 1000  # of the drawing, which is never wrapped


@click.command("inspect")
@click.argument("path", metavar="BUNDLE", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="The manifest as JSON.")
@check_hashes
def command(path: Path, as_json: bool, check_hashes: bool) -> None:
    """Say what the BUNDLE directory holds, and draw its hierarchy.

    Two lines say which tasks native kernels compute on this machine, and which ONNX Runtime does.
    The drawing has the first clusters and the last one, with their first targets.
    """
    from hsoftmax.bundle import open_bundle
    from hsoftmax.latest_version import latest_version

    opened = open_bundle(latest_version(path), check_hashes=check_hashes)
    if as_json:
        click.echo(opened.manifest.to_json(), nl=False)
    else:
        _print_table(opened.manifest)
        _print_hierarchy(opened)


def _print_table(manifest: bundle.Manifest) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in (*_manifest_lines(manifest), *_runtimes(manifest)):
        table.add_row(name, value)
    Console(soft_wrap=True).print(table)


def _print_hierarchy(opened: bundle.Bundle) -> None:
    from rich.console import Console

    from hsoftmax.hierarchy import draw_hierarchy

    if (tree := draw_hierarchy(opened)) is not None:
        console = Console(width=_MAX_LINE_CHARS, color_system=None)
        with console.capture() as captured:
            console.print(tree)
        lines = [line.rstrip() for line in captured.get().splitlines()]
        click.echo("\n".join(["", *lines]))


def _manifest_lines(manifest: bundle.Manifest) -> Iterator[tuple[str, str]]:
    yield "family", manifest.family
    for name in ("hidden_size", "num_targets", "num_clusters"):
        if (size := getattr(manifest, name)) is not None:
            yield name, f"{size:,}"
    yield "precision", manifest.precision
    if manifest.padding is not None:
        yield "padding", manifest.padding
    yield "labels", manifest.labels or "none"
    if manifest.featurizer is not None:
        yield "text", manifest.featurizer
    yield "size", f"{sum(file.size for file in manifest.files.values()):,} bytes"
    yield "digest", manifest.digest
    yield "source", ", ".join([manifest.source.format, *manifest.source.files])
    if (encoder := manifest.encoder) is not None:
        position = f", position {encoder.position}" if encoder.position else ""
        yield "encoder", ", ".join(map(_input, encoder.row_inputs)) + position
    for task in dict.fromkeys([*manifest.tasks, *(c.task for c in manifest.verification)]):
        checks = [check for check in manifest.verification if check.task == task]
        yield f"task {task}", ", ".join(f"{c.case} ±{c.max_error:.0e}" for c in checks)
    for measured in manifest.accuracy:
        yield f"accuracy, {measured.rows_from}", _accuracy(measured)


def _input(port: bundle.Port) -> str:
    return f"{port.name} ({', '.join(map(str, port.shape))})"


def _runtimes(manifest: bundle.Manifest) -> Iterator[tuple[str, str]]:
    """Yield the tasks that each runtime of this machine computes."""
    native, said = _native_tasks(manifest)
    yield "native kernels", said
    yield "ONNX Runtime", ", ".join(task for task in manifest.tasks if task not in native) or "none"


def _native_tasks(manifest: bundle.Manifest) -> tuple[list[str], str]:
    """Return the tasks that native kernels compute on this machine, and the text that says so."""
    try:
        from hsoftmax.runtime.native import has_kernel, load_library
    except ModuleNotFoundError as error:
        return [], f"none: the package {error.name} is not installed"
    library = load_library()
    if isinstance(library, str):
        return [], f"none: {library}"
    tasks = [task for task in manifest.tasks if has_kernel(manifest.family, task)]
    return tasks, f"{', '.join(tasks) or 'none'} ({library.instruction_set})"


def _accuracy(measured: bundle.Accuracy) -> str:
    return (
        f"{measured.rows:,} rows: |Δ log p| at most {measured.max_error:.1e}, "
        f"mean {measured.mean_error:.1e}; KL {measured.kl:.1e}; "
        f"top-1 {measured.top1_agreement:.1%}, top-10 {measured.top10_agreement:.1%}"
    )
