"""`hsoftmax verify`: is a bundle whole, and is its every task computed as the reference does?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from hsoftmax import bundle


@click.command("verify")
@click.argument("path", metavar="BUNDLE", type=click.Path(path_type=Path))
def command(path: Path) -> int:
    """Check the BUNDLE's hashes, every task against the reference, and its text.

    Tasks that native kernels compute on this machine are checked twice: the graph and the kernel.
    """
    from hsoftmax import bundle, exporter, featurizers
    from hsoftmax.latest_version import latest_version

    opened = bundle.open_bundle(latest_version(path))
    checks = exporter.verify(opened.path, opened.manifest)
    _print_checks(checks)
    if (featurizer := featurizers.open_featurizer(opened)) is not None:
        click.echo(f"ok   text, {len(featurizer.vocabulary):,} words")
    if exporter.verify_encoder(opened):
        click.echo("ok   encoder, rows have the states that they have alone")
    wrong = exporter.failures(checks) + _wrong_kernels(opened)
    if wrong:
        raise exporter.VerificationError(wrong[0])
    return 0


def _wrong_kernels(opened: bundle.Bundle) -> list[str]:
    """Check the native kernels, if there are any; return one sentence for each that is wrong."""
    from hsoftmax import exporter
    from hsoftmax.runtime.native import load_library

    library = load_library()
    if isinstance(library, str):
        click.echo(f"native kernels: not checked: {library}")
        return []
    checks = exporter.verify_kernels(opened.path, opened.manifest, library)
    _print_checks(checks, f"native {library.instruction_set} ")
    return [f"native kernel: {sentence}" for sentence in exporter.failures(checks)]


def _print_checks(checks: tuple[bundle.Check, ...], runtime: str = "") -> None:
    for check in checks:
        click.echo(
            f"{'ok  ' if check.passed else 'FAIL'} {runtime}{check.task}, {check.case} logits: "
            f"largest error {check.max_error:.1e}, tolerance {check.tolerance:.1e}"
        )
