"""`hsoftmax export`: trained weights become a bundle."""

from pathlib import Path

import click

import exporter

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command("export")
@click.argument("weights", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--from",
    "source",
    type=click.Choice(list(exporter.SOURCES)),
    required=True,
    help="Format of WEIGHTS.",
)
@click.option(
    "--to",
    type=click.Path(path_type=Path),
    required=True,
    metavar="REPOSITORY/NAME[/VERSION]",
    help="Where the bundle goes; without a version it is the first.",
)
@click.option("--num-targets", type=click.IntRange(min=1), help="Targets, where the file lacks it.")
@click.option("--labels", type=_FILE, help="UTF-8 file, one label a line; line = target.")
@click.option(
    "--padding",
    type=click.Choice(["mask", "theano"]),
    default="mask",
    show_default=True,
    help="Slots that are no target: give them nothing, or let them keep their mass.",
)
def command(
    weights: Path, source: str, to: Path, num_targets: int | None, labels: Path | None, padding: str
) -> None:
    """Lower trained WEIGHTS into ONNX graphs over one weights file, verified before visible."""
    options = exporter.Options(
        num_targets=num_targets, padding="theano" if padding == "theano" else "mask"
    )
    made = exporter.export_file(weights, to, source=source, options=options, labels=labels)
    worst = max(check.max_error / check.tolerance for check in made.manifest.verification)
    click.echo(f"{made.path}")
    click.echo(
        f"{made.manifest.num_targets:,} targets in {made.manifest.num_clusters:,} clusters, "
        f"{len(made.manifest.verification)} checks passed (largest error {worst:.0%} of the "
        f"tolerance), digest {made.manifest.digest[:12]}"
    )
