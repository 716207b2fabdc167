"""`hsoftmax export`: trained weights become a bundle."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, get_args

import click

from hsoftmax.exporter.choices import AUTO, SOURCE_NAMES, ClusterOrder, EncoderPosition
from hsoftmax.models.choices import Compat, Padding, Precision
from hsoftmax.options import choice
from hsoftmax.stores.errors import UrlError
from hsoftmax.stores.url import StoreUrl, is_url, parse_url

if TYPE_CHECKING:
    from hsoftmax import bundle

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)

_BUNDLE_PATH = "REPOSITORY/NAME[/VERSION]"


class _BundlePath(click.Path):
    """`REPOSITORY/NAME[/VERSION]`, of which the repository may be `.` but may not be left out.

    The repository may be in a store.
    """

    def convert(
        self,
        value: str | PathLike[str],
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Any:  # noqa: ANN401  a Path or a StoreUrl
        if is_url(str(value)):
            return self._url(str(value))
        folder, _, last = str(value).rstrip("/").rpartition("/")
        if not folder or (last.isdigit() and "/" not in folder and folder != "."):
            self.fail(
                f"expected {_BUNDLE_PATH}, got {value}: name the folder of the repository too, "
                f"such as repository/{value} or ./{value}"
            )
        return Path(value)

    def _url(self, value: str) -> StoreUrl:
        """Parse `s3://BUCKET/PATH/NAME[/VERSION]`."""
        try:
            url = parse_url(value)
        except UrlError as error:
            self.fail(str(error))
        if url.scheme in ("http", "https"):
            self.fail(f"expected s3://, gs:// or az:// to write to, got {url.scheme}://")
        if not url.path or url.path.isdigit():
            self.fail(f"expected {url.scheme}://BUCKET/PATH/NAME[/VERSION], got {url}")
        return url


def _cutoffs(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, ...]:
    """Ascending positive numbers, separated by commas; none where nothing was given."""
    try:
        cutoffs = tuple(int(part) for part in value.split(",")) if value else ()
    except ValueError:
        raise click.BadParameter(f"expected numbers separated by commas, got {value!r}") from None
    if any(a >= b for a, b in pairwise((0, *cutoffs))):
        raise click.BadParameter(f"expected ascending numbers from 1, got {value}")
    return cutoffs


def _names(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> tuple[tuple[str, str], ...]:
    """Pairs of a name of the format and a name in the file; none where nothing was given."""
    parts = [part.partition("=") for part in value.split(",")] if value else []
    pairs = tuple((own.strip(), in_file.strip()) for own, _, in_file in parts)
    if not all(own and in_file for own, in_file in pairs):
        raise click.BadParameter(f"expected NAME=IN_FILE,..., got {value!r}")
    for names in zip(*pairs, strict=True):
        if len(set(names)) < len(names):
            raise click.BadParameter(f"expected each name once, got {value!r}")
    return pairs


@click.command("export")
@click.argument("weights", type=click.Path(exists=True, path_type=Path))
@choice(
    "--from",
    "source",
    among=[AUTO, *SOURCE_NAMES],
    help="Format of WEIGHTS; auto tells it by the content and says what it saw.",
)
@click.option(
    "--to",
    type=_BundlePath(),
    required=True,
    metavar=_BUNDLE_PATH,
    help="Where the bundle goes; without a version it is the first. REPOSITORY may be in a store: "
    "s3://, gs:// or az://.",
)
@click.option("--num-targets", type=click.IntRange(min=1), help="Targets, where the file lacks it.")
@click.option(
    "--cutoffs",
    metavar="A,B,...",
    callback=_cutoffs,
    help="First targets of an adaptive softmax's tails, where the file lacks them.",
)
@choice(
    "--cluster-order",
    among=get_args(ClusterOrder),
    help="Transformer-XL: the head's columns for its tails; reversed in the original code.",
)
@click.option(
    "--prefix",
    help="Prefix of one of several softmaxes in the file, as its tensors' names have it.",
)
@click.option(
    "--names",
    metavar="NAME=IN_FILE,...",
    callback=_names,
    help="Names of arrays in the file for names of the format, such as W1=arr_0,b1=arr_1.",
)
@click.option(
    "--labels",
    type=_FILE,
    help="UTF-8 file of the targets' labels: one a line, label<TAB>id, or JSON (list or ids).",
)
@click.option(
    "--pad-labels",
    metavar="TEXT",
    help="Label of targets beyond --labels (a padded vocabulary): TEXT and the target's number.",
)
@choice(
    "--padding",
    among=get_args(Padding),
    help="Slots that are no target: give them nothing, or let them keep their mass.",
)
@choice(
    "--compat",
    among=get_args(Compat),
    help="Binary trees: probabilities that sum to one, or fastText's own scores.",
)
@click.option(
    "--text/--no-text",
    default=True,
    help="fastText, gensim: carry the input vectors along, so that the bundle takes text.",
)
@choice(
    "--precision",
    among=get_args(Precision),
    help="How weights are stored: bf16 and fp16 halve the bytes, int8 quarters them; bf16 and int8 "
    "are faster.",
)
@click.option("--calibration", type=_FILE, help="Hidden rows, .npy, to measure the accuracy with.")
@click.option(
    "--max-error",
    type=click.FloatRange(min=0),
    help="Refuse a bundle with an answer further than this from the trained weights' log p.",
)
@click.option(
    "--encoder",
    type=_FILE,
    metavar="ENCODER.onnx",
    help="ONNX model in front of the head: the bundle then takes the model's inputs.",
)
@click.option("--encoder-output", metavar="NAME", help="Its output that is the hidden state.")
@click.option(
    "--encoder-position",
    type=click.Choice(get_args(EncoderPosition)),
    help="Which state of a sequence is meant, where the output has one for each position.",
)
@click.option("--encoder-mask", metavar="NAME", help="Its input that marks the real positions.")
@click.option("--encoder-lengths", metavar="NAME", help="Its input of the rows' lengths.")
@click.option(
    "--tokenizer",
    type=_FILE,
    metavar="TOKENIZER.json",
    help="List of words, or Hugging Face tokenizer, in front of the encoder: the bundle then takes "
    "text.",
)
@click.option(
    "--cuda/--no-cuda",
    default=False,
    help="Add graphs for CUDA: with them, every task that has one runs on the device.",
)
def command(
    weights: Path,
    source: str,
    to: Path | StoreUrl,
    labels: Path | None,
    pad_labels: str | None,
    precision: Precision,
    calibration: Path | None,
    max_error: float | None,
    encoder: Path | None,
    encoder_output: str | None,
    encoder_position: EncoderPosition | None,
    encoder_mask: str | None,
    encoder_lengths: str | None,
    tokenizer: Path | None,
    cuda: bool,
    **options: Any,  # noqa: ANN401  the source's
) -> None:
    """Lower trained WEIGHTS into ONNX graphs over one weights file, verified before visible."""
    from hsoftmax import exporter

    facts = (encoder_output, encoder_position, encoder_mask, encoder_lengths, tokenizer)
    if encoder is None and any(facts):
        raise click.UsageError(
            "expected --encoder FILE beside --encoder-… and --tokenizer, got none"
        )
    source_options = exporter.SourceOptions(**options)
    if source == AUTO:
        detected = exporter.detect_source(weights, source_options)
        source = detected.source
        click.echo(f"{weights.name}: {detected.description} (--from {source})")
    with _folder_for(to) as (folder, url):
        made = exporter.export_file(
            weights,
            folder,
            source=source,
            options=source_options,
            labels=labels,
            label_padding=pad_labels,
            precision_options=exporter.PrecisionOptions(precision, calibration, max_error),
            on_note=click.echo,
            encoder=None if encoder is None else exporter.EncoderOptions(encoder, *facts),
            cuda=cuda,
        )
    click.echo(f"{url or made.path}")
    click.echo(_summary_line(made.manifest))
    if made.manifest.featurizer is not None or made.manifest.tokenizer is not None:
        click.echo('takes text too: hsoftmax serve answers {"inputs": ["..."]}')
    if made.manifest.encoder is not None:
        click.echo(f"takes {_encoder_line(made.manifest.encoder)}")


@contextmanager
def _folder_for(to: Path | StoreUrl) -> Iterator[tuple[Path, StoreUrl | None]]:
    """Yield the path to export to, and the address that the bundle then has in a store.

    A bundle for a store is made in a temporary folder, and uploaded once it is verified.
    """
    if isinstance(to, Path):
        yield to, None
        return
    from hsoftmax.stores.upload import expect_new, upload_bundle

    has_version = to.name.isascii() and to.name.isdigit()
    url = to.parent.join(str(int(to.name))) if has_version else to.join("1")
    expect_new(url, has_version=has_version)
    with TemporaryDirectory(prefix="hsoftmax-") as temporary:
        folder = Path(temporary) / url.parent.name / url.name
        yield folder, url
        upload_bundle(folder, url)


def _encoder_line(encoder: bundle.Encoder) -> str:
    """Return how a query gives the inputs of the encoder."""
    names = ", ".join(f'"{port.name}": [...]' for port in encoder.row_inputs)
    return f'the inputs of its encoder: {{"inputs": {{{names}}}}}'


def _summary_line(manifest: bundle.Manifest) -> str:
    worst = max(check.max_error / check.tolerance for check in manifest.verification)
    return (
        f"{_sizes(manifest)}, {len(manifest.verification)} checks passed (largest error "
        f"{worst:.0%} of the tolerance), digest {manifest.digest[:12]}"
    )


def _sizes(manifest: bundle.Manifest) -> str:
    targets, clusters = manifest.num_targets, manifest.num_clusters
    if targets is None:
        return manifest.family
    return f"{targets:,} targets" + ("" if clusters is None else f" in {clusters:,} clusters")
