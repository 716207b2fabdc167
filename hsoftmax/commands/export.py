"""`hsoftmax export`: trained weights become a bundle."""

from itertools import pairwise
from pathlib import Path
from typing import get_args

import click

import bundle
import exporter

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


def _cutoffs(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, ...]:
    """Ascending positive numbers, separated by commas; none where nothing was given."""
    try:
        cutoffs = tuple(int(part) for part in value.split(",")) if value else ()
    except ValueError:
        raise click.BadParameter(f"expected numbers separated by commas, got {value!r}") from None
    if any(a >= b for a, b in pairwise((0, *cutoffs))):
        raise click.BadParameter(f"expected ascending numbers from 1, got {value}")
    return cutoffs


def _sizes(manifest: bundle.Manifest) -> str:
    targets, clusters = manifest.num_targets, manifest.num_clusters
    if targets is None:
        return manifest.family
    return f"{targets:,} targets" + ("" if clusters is None else f" in {clusters:,} clusters")


@click.command("export")
@click.argument("weights", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--from",
    "source",
    type=click.Choice([exporter.AUTO, *exporter.SOURCES]),
    default=exporter.AUTO,
    show_default=True,
    help="Format of WEIGHTS; auto tells it by the content and says what it saw.",
)
@click.option(
    "--to",
    type=click.Path(path_type=Path),
    required=True,
    metavar="REPOSITORY/NAME[/VERSION]",
    help="Where the bundle goes; without a version it is the first.",
)
@click.option("--num-targets", type=click.IntRange(min=1), help="Targets, where the file lacks it.")
@click.option(
    "--cutoffs",
    metavar="A,B,...",
    callback=_cutoffs,
    help="First targets of an adaptive softmax's tails, where the file lacks them.",
)
@click.option(
    "--cluster-order",
    type=click.Choice(["ascending", "reversed"]),
    default="ascending",
    show_default=True,
    help="Transformer-XL: the head's columns for its tails; reversed in the original code.",
)
@click.option("--labels", type=_FILE, help="UTF-8 file, one label a line; line = target.")
@click.option(
    "--padding",
    type=click.Choice(["mask", "theano"]),
    default="mask",
    show_default=True,
    help="Slots that are no target: give them nothing, or let them keep their mass.",
)
@click.option(
    "--compat",
    type=click.Choice(["exact", "fasttext"]),
    default="exact",
    show_default=True,
    help="Binary trees: probabilities that sum to one, or fastText's own scores.",
)
@click.option(
    "--precision",
    type=click.Choice(get_args(bundle.Precision)),
    default="fp32",
    show_default=True,
    help="How weights are stored: fp16 halves the bytes, int8 quarters them and is faster.",
)
@click.option("--calibration", type=_FILE, help="Hidden rows, .npy, to measure the accuracy with.")
@click.option(
    "--max-error",
    type=click.FloatRange(min=0),
    help="Refuse a bundle with an answer further than this from the trained weights' log p.",
)
def command(
    weights: Path,
    source: str,
    to: Path,
    num_targets: int | None,
    cutoffs: tuple[int, ...],
    cluster_order: str,
    labels: Path | None,
    padding: str,
    compat: str,
    precision: bundle.Precision,
    calibration: Path | None,
    max_error: float | None,
) -> None:
    """Lower trained WEIGHTS into ONNX graphs over one weights file, verified before visible."""
    options = exporter.Options(
        num_targets=num_targets,
        padding="theano" if padding == "theano" else "mask",
        cutoffs=cutoffs,
        cluster_order="reversed" if cluster_order == "reversed" else "ascending",
        compat="fasttext" if compat == "fasttext" else "exact",
    )
    if source == exporter.AUTO:
        recognised = exporter.recognise(weights)
        source = recognised.source
        click.echo(f"{weights.name}: {recognised.saw} (--from {source})")
    made = exporter.export_file(
        weights,
        to,
        source=source,
        options=options,
        labels=labels,
        fidelity=exporter.Fidelity(precision, calibration, max_error),
    )
    worst = max(check.max_error / check.tolerance for check in made.manifest.verification)
    click.echo(f"{made.path}")
    click.echo(
        f"{_sizes(made.manifest)}, "
        f"{len(made.manifest.verification)} checks passed (largest error {worst:.0%} of the "
        f"tolerance), digest {made.manifest.digest[:12]}"
    )
