"""`hsoftmax score`: every row of files of any size, losing none."""

from __future__ import annotations

import os
from contextlib import closing
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from hsoftmax.options import check_hashes, choice
from hsoftmax.runtime.choices import NativeChoice
from hsoftmax.scoring.choices import DEFAULT_K, MAX_SEED, TASK_NAMES, OovPolicy, TaskName

if TYPE_CHECKING:
    from hsoftmax import scoring
    from hsoftmax.runners.ray import RayJob
    from hsoftmax.score_request import ScoreRequest

_REMOTE_ROWS = 256  # in one request
_COUNT = click.IntRange(min=1)


@click.command("score")
@click.argument("path", metavar="BUNDLE", type=click.Path())
@click.argument("input", type=click.Path(exists=True, path_type=Path))
@click.argument("output", type=click.Path(path_type=Path))
@click.option("--task", "name", type=click.Choice(TASK_NAMES), required=True)
@click.option(
    "--k",
    type=_COUNT,
    help=f"top_k: targets a row. Default: {DEFAULT_K}, or all of the bundle if it has fewer.",
)
@click.option(
    "--max-blocks",
    type=click.IntRange(min=0),
    default=0,
    help="top_k: most blocks to open for a row; 0, the default, is no limit.",
)
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1),
    help="top_k: only targets with a probability above it, at most k. Default: none.",
)
@click.option("--num-samples", type=_COUNT, default=1, show_default=True, help="sample: a row's.")
@click.option(
    "--seed",
    type=click.IntRange(0, MAX_SEED),
    default=0,
    show_default=True,
    help="sample: the same seed draws the same.",
)
@choice(
    "--oov",
    among=get_args(OovPolicy),
    help="perplexity: a label that the bundle has not is an error, or is left out.",
)
@click.option("--log-base", type=float, help="perplexity: of the log-probabilities. Default: e.")
@click.option(
    "--columns",
    multiple=True,
    metavar="NAMES",
    help="Input columns, as in h0..h127 or a,b,c; or role=name, as in text=body,target=next.",
)
@click.option("--labels", "labelled", is_flag=True, help='CSV: targets are labels, even "17".')
@click.option("--resume", is_flag=True, help="Go on where a run of this very job stopped.")
@click.option("--batch", type=_COUNT, help="Rows in one run of the graph.")
@click.option("--shard-rows", type=_COUNT, help="Rows that are finished and recorded together.")
@click.option("--threads", type=_COUNT, help="Default: all cores that this process may use.")
@choice(
    "--engine",
    among=["local", "ray"],
    help="Where the rows are scored: here, or on all nodes of a Ray cluster.",
)
@click.option("--address", help="ray: the cluster's host:port. Default: RAY_ADDRESS, or a new one.")
@choice(
    "--native",
    among=get_args(NativeChoice),
    help="Native kernels: where installed, always, or never. Auto resumes a job as it began.",
)
@check_hashes
@click.option("--url", help="Score through this server; BUNDLE is its NAME or NAME/VERSION.")
@click.option("--key", envvar="HSOFTMAX_API_KEY", help="The server's API key.")
def command(
    path: str,
    input: Path,
    output: Path,
    name: TaskName,
    columns: tuple[str, ...],
    labelled: bool,
    resume: bool,
    batch: int | None,
    shard_rows: int | None,
    threads: int | None,
    engine: str,
    address: str | None,
    native: NativeChoice,
    check_hashes: bool,
    url: str | None,
    key: str | None,
    **parameters: Any,  # noqa: ANN401  the task's own
) -> None:
    """Score the rows of INPUT, a file or a folder of them, into OUTPUT.

    Formats go by extension: .ndjson, .csv, .parquet, .arrow, .npy; .ndjson.gz and .csv.gz are read.
    Where BUNDLE takes text, an input or a column `text` may hold it; .txt is one text a line.
    A row that is wrong becomes an error record in its place. Nothing is at OUTPUT before all of it
    is. An OUTPUT without an extension is a folder of files in the format of INPUT.
    """
    from hsoftmax import scoring
    from hsoftmax.progress import ProgressBar
    from hsoftmax.score_request import ScoreRequest, open_job_spec

    _expect_one_way(engine, address, url)
    native = _native_of_begun_job(output, native) if resume else native
    run, bundle_info = _remote(url, path, key) if url else _local(Path(path), check_hashes, native)
    _expect_apart(input, output)
    call = ScoreRequest(
        input, output, scoring.Task(name, **parameters), scoring.parse_columns(columns),
        labelled, batch or (_REMOTE_ROWS if url else None), shard_rows,
    )  # fmt: skip
    spec = open_job_spec(call, bundle_info)
    with closing(spec.reader), ProgressBar() as bar:
        if engine == "ray":
            job = _ray_job(Path(path), call, spec, check_hashes)
            make = _cluster(job, address, threads)
            summary = scoring.run_job_with(spec, make, resume=resume, progress=bar.update)
        else:
            cores = threads or len(os.sched_getaffinity(0))
            summary = scoring.run_job(spec, run, resume=resume, threads=cores, progress=bar.update)
    click.echo(f"{output}: {_summary_line(summary)}{bar.rate()}")
    _expect_scored_rows(spec, summary)


def _local(
    path: Path, check_hashes: bool, native: NativeChoice
) -> tuple[scoring.GraphRunner, scoring.BundleInfo]:
    from hsoftmax import bundle
    from hsoftmax.latest_version import latest_version
    from hsoftmax.runners.local import LocalGraphRunner, bundle_info_of

    opened = bundle.open_bundle(latest_version(path), check_hashes=check_hashes)
    runner = LocalGraphRunner(opened, native=native)
    return runner, bundle_info_of(opened, runner.native_graphs)


def _native_of_begun_job(output: Path, native: NativeChoice) -> NativeChoice:
    """Return `off` in place of `auto` for a job that began with the graphs of ONNX Runtime."""
    from hsoftmax.scoring import begun_identity

    begun = begun_identity(output) if native == "auto" else None
    return native if begun is None or begun.get("native", True) else "off"


def _remote(url: str, name: str, key: str | None) -> tuple[scoring.GraphRunner, scoring.BundleInfo]:
    from hsoftmax.runners.remote import connect

    run = connect(url.rstrip("/"), name, key)
    click.get_current_context().call_on_close(run.close)
    return run, run.bundle_info


def _ray_job(path: Path, call: ScoreRequest, spec: scoring.JobSpec, check_hashes: bool) -> RayJob:
    from hsoftmax.latest_version import latest_version
    from hsoftmax.runners.ray import RayJob

    # Elsewhere there is another working directory, and later perhaps a newer version.
    call = replace(call, input=call.input.resolve(), output=call.output.resolve())
    return RayJob(latest_version(path).resolve(), call, spec.identity(), check_hashes)


def _cluster(job: RayJob, address: str | None, threads: int | None) -> scoring.ShardProducer:
    from hsoftmax.runners.ray import RayShardProducer

    return RayShardProducer(job, address, threads)


def _expect_one_way(engine: str, address: str | None, url: str | None) -> None:
    from hsoftmax.scoring import CallError, ScoringError

    if engine == "ray" and url:
        raise CallError("url: expected no --engine ray beside it, got one")
    if engine != "ray" and address:
        raise CallError("address: expected --engine ray beside it, got none")
    if engine == "ray" and find_spec("ray") is None:
        raise ScoringError("engine ray: expected the package ray, which is not installed: "
                                   "pip install '.[ray]'")  # fmt: skip
    if url and not url.startswith(("http://", "https://")):
        raise CallError(f"url: expected http:// or https:// and a host, got {url}")
    if address and "://" in address:
        raise CallError(f"address: expected the host:port of a cluster that this machine "
                                f"is a node of, got {address}")  # fmt: skip


def _expect_apart(input: Path, output: Path) -> None:
    from hsoftmax.scoring import CallError

    if str(output) == "-":
        raise CallError("OUTPUT: expected a file or a folder, got -")
    if not output.parent.is_dir():
        raise CallError(f"{output}: expected a folder to put it in, got none")
    if input.is_dir() and input.resolve() == output.parent.resolve():
        raise CallError(f"{output}: expected it outside of the input's folder, got inside")


def _expect_scored_rows(spec: scoring.JobSpec, summary: dict[str, Any]) -> None:
    """Raises ScoringError if every row failed, or if files that are not empty have no rows.

    The output is in its place all the same.
    """
    from hsoftmax.scoring import ScoringError, total_failure

    if failure := total_failure(summary):
        raise ScoringError(failure)
    if not summary["rows_in"] and not spec.reader.states_rows:
        sizes = {path: path.stat().st_size for path in spec.reader.files}
        if path := next((path for path, size in sizes.items() if size), None):
            raise ScoringError(f"{path}: expected rows, got none in {sizes[path]:,} bytes")


def _summary_line(summary: dict[str, Any]) -> str:
    said = (f"{summary['rows_in']:,} rows, {summary['scored']:,} scored, "
            f"{summary['failed']:,} failed")  # fmt: skip
    if corpus := summary.get("corpus"):
        perplexity = "none" if corpus["perplexity"] is None else f"{corpus['perplexity']:.6g}"
        said += (
            f"; perplexity {perplexity} over {corpus['words']:,} words in "
            f"{corpus['sequences']:,} sequences, {corpus['oov']:,} out of vocabulary, "
            f"log_prob {corpus['log_prob']:.6g} to base {corpus['log_base']}"
        )
    return said
