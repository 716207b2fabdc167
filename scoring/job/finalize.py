"""The end of a job: counts checked, one rename, and a summary beside it."""

import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from hsoftmax.scoring.errors import CorruptShard, InputChanged, ScoringError
from hsoftmax.scoring.perplexity import Tally

from .assembly import assemble_output
from .checkpoint import CheckpointStore, Shard
from .output import OutputSpec
from .spec import JobSpec, expect_same_job, fingerprint
from .workspace import (
    Workspace,
    intact_shards,
    lock_workspace,
    place,
    remove_workspace,
    workspace_path,
)

Put = Callable[[], str]  # all finished shards aside as the output; its SHA-256


def summary_path(output: Path) -> Path:
    return output.with_name(output.name + ".summary.json")


def sequences_path(output: Path) -> Path:
    return output.with_name(output.name + ".sequences.ndjson")


def errors_path(output: Path) -> Path:
    return output.with_name(output.name + ".errors.ndjson")


def is_assembled(output: Path, workspace: Workspace, checkpoint: CheckpointStore) -> bool:
    """Whether only the sweeping up is left."""
    summary = checkpoint.summary()
    return summary is not None and (workspace.assembled.exists() or _is(output, summary))


def commit_output(
    spec: JobSpec,
    workspace: Workspace,
    checkpoint: CheckpointStore,
    identity: dict[str, Any],
    put: Put,
) -> None:
    """Let the ledger say that the output is put together, with all rows of an unchanged input."""
    if fingerprint(spec.reader.files) != identity["input"]:
        raise InputChanged("input: expected it to stay as it was, got a change while it was read")
    _expect_all_rows(spec, checkpoint.shards())
    _record(spec.output_spec, workspace, checkpoint, identity, put)


def finalize_partial(output_spec: OutputSpec) -> dict[str, Any] | None:
    """Put in its place what is finished of a job that will not go on; None if nothing is.

    It needs neither the input nor the bundle, and may be called again if it stopped in here.

    Raises:
        SpoiledShard: there is one shard less now; call it again.
        ScoringError, OSError: it stopped; what is finished is kept.
    """
    output = output_spec.output
    if not workspace_path(output).exists():
        return _left(output)
    with lock_workspace(output) as workspace:
        try:
            with (
                closing(CheckpointStore(workspace.checkpoint_path)) as checkpoint,
                forget_corrupt_shard(checkpoint),
            ):
                return _concluded(output_spec, workspace, checkpoint)
        except sqlite3.Error as error:
            raise ScoringError(
                f"{workspace.checkpoint_path}: expected a ledger, got: {error}"
            ) from None


@contextmanager
def forget_corrupt_shard(checkpoint: CheckpointStore) -> Iterator[None]:
    """A shard that the disk spoilt is no longer finished."""
    try:
        yield
    except CorruptShard as corrupt:
        checkpoint.forget(corrupt.number)
        raise


def _concluded(
    output_spec: OutputSpec, workspace: Workspace, checkpoint: CheckpointStore
) -> dict[str, Any] | None:
    identity = checkpoint.identity()
    if identity is None:
        return _left(output_spec.output)
    if not is_assembled(output_spec.output, workspace, checkpoint):
        if not (shards := intact_shards(workspace, checkpoint)):
            return _left(output_spec.output)
        put = partial(assemble_output, output_spec, workspace, shards)
        _record(output_spec, workspace, checkpoint, identity, put)
    return publish(output_spec, workspace, checkpoint)


def _record(
    output_spec: OutputSpec,
    workspace: Workspace,
    checkpoint: CheckpointStore,
    identity: dict[str, Any],
    put: Put,
) -> None:
    shards = checkpoint.shards()
    _expect_sums(shards)
    sha256 = put()
    if output_spec.folder:  # no folder can be renamed onto another
        shutil.rmtree(workspace.assembled, ignore_errors=True)
    place(workspace.aside_of_assembled, workspace.assembled)
    checkpoint.assembled(_summary(output_spec, workspace, checkpoint, shards, identity, sha256))


def publish(
    output_spec: OutputSpec, workspace: Workspace, checkpoint: CheckpointStore
) -> dict[str, Any]:
    """Put what is put together in its place; may be called again for a job that stopped in here."""
    summary = checkpoint.summary()
    if summary is None:
        raise ScoringError(f"{workspace.checkpoint_path}: expected the output's summary, got none")
    if workspace.assembled.exists():
        _write_beside(output_spec, checkpoint, summary)
        place(workspace.assembled, output_spec.output)
    remove_workspace(workspace)
    return summary


def finished_summary(spec: JobSpec, identity: dict[str, Any]) -> dict[str, Any] | None:
    """The summary of the very job that left this output, None where there is none or it is gone.

    Raises:
        CallError: it was another job that left it.
    """
    summary = _summary_beside(spec.output)
    if summary is None or not spec.output.exists():
        return None
    expect_same_job(identity, summary["job"])
    return summary if _is(spec.output, summary) else None


def _left(output: Path) -> dict[str, Any] | None:
    """The summary of the output that is there, if it is whole."""
    summary = _summary_beside(output)
    return summary if summary is not None and _is(output, summary) else None


def _summary_beside(output: Path) -> dict[str, Any] | None:
    try:
        return dict(json.loads(summary_path(output).read_text("utf-8")))
    except (OSError, ValueError):
        return None


def _is(output: Path, summary: dict[str, Any]) -> bool:
    return output.exists() and _size(output) == summary["size"]


def _files(output: Path) -> list[Path]:
    return sorted(output.iterdir()) if output.is_dir() else [output]


def _size(output: Path) -> int:
    return sum(path.stat().st_size for path in _files(output))


def _expect_all_rows(spec: JobSpec, shards: list[Shard]) -> None:
    """Every row is accounted for, as the input counts them."""
    rows = sum(shard.rows for shard in shards)
    if spec.reader.total not in (None, rows):
        raise ScoringError(f"input: expected {spec.reader.total} rows, got {rows}")


def _expect_sums(shards: list[Shard]) -> None:
    """Every row of each shard is one or the other."""
    for shard in shards:
        if shard.rows != shard.scored + shard.failed:
            raise ScoringError(f"shard {shard.number}: expected {shard.rows} rows, "
                               f"got {shard.scored} scored and {shard.failed} failed")  # fmt: skip


def _summary(
    output_spec: OutputSpec,
    workspace: Workspace,
    checkpoint: CheckpointStore,
    shards: list[Shard],
    identity: dict[str, Any],
    sha256: str,
) -> dict[str, Any]:
    summary = {
        "rows_in": sum(shard.rows for shard in shards),
        "scored": sum(shard.scored for shard in shards),
        "failed": sum(shard.failed for shard in shards),
        "size": _size(workspace.assembled),
        "sha256": sha256,
        "model": output_spec.model,
        "task": output_spec.task.name,
        "job": identity,
    }
    if output_spec.task.name == "perplexity":
        corpus, count = Tally(), 0
        for _, tally in checkpoint.sequences():
            corpus, count = corpus + tally, count + 1
        base = output_spec.task.log_base
        unit = {"log_base": "e" if base is None else base, "sequences": count}
        summary |= {"corpus": {**corpus.report(base), **unit}}
    return summary


def _write_beside(
    output_spec: OutputSpec, checkpoint: CheckpointStore, summary: dict[str, Any]
) -> None:
    """The summary, and what the output has no place for."""
    if output_spec.task.name == "perplexity":
        _write(sequences_path(output_spec.output), _sequence_lines(output_spec, checkpoint))
    errors_path(output_spec.output).unlink(missing_ok=True)
    if output_spec.has_error_file and summary["failed"]:
        _write(
            errors_path(output_spec.output),
            (row_error.encode() for row_error in checkpoint.flaws()),
        )
    _write(summary_path(output_spec.output), [json.dumps(summary, indent=1).encode() + b"\n"])


def _sequence_lines(output_spec: OutputSpec, checkpoint: CheckpointStore) -> Iterator[bytes]:
    for name, tally in checkpoint.sequences():
        record = {"sequence": name, **tally.report(output_spec.task.log_base)}
        yield orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)


def _write(path: Path, lines: Iterable[bytes]) -> None:
    aside = path.with_name(path.name + ".tmp")
    with aside.open("wb") as file:
        file.writelines(lines)
        file.flush()
        os.fsync(file.fileno())
    place(aside, path)
