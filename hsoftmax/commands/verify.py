"""`hsoftmax verify`: is a bundle whole, and do its graphs answer as the reference does?"""

from pathlib import Path

import click


@click.command("verify")
@click.argument("path", metavar="BUNDLE", type=click.Path(path_type=Path))
def command(path: Path) -> int:
    """Check the BUNDLE's hashes, every task against the reference, and that it reads text."""
    from hsoftmax import bundle, exporter, featurizers
    from hsoftmax.latest_version import latest_version

    opened = bundle.open_bundle(latest_version(path))
    checks = exporter.verify(opened.path, opened.manifest)
    for check in checks:
        click.echo(
            f"{'ok  ' if check.passed else 'FAIL'} {check.task}, {check.case} logits: "
            f"largest error {check.max_error:.1e}, tolerance {check.tolerance:.1e}"
        )
    if (featurizer := featurizers.open_featurizer(opened)) is not None:
        click.echo(f"ok   text, {len(featurizer.vocabulary):,} words")
    if wrong := exporter.failures(checks):
        raise exporter.VerificationError(wrong[0])
    return 0
