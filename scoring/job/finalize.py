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

from hsoftmax.scoring.errors import InputChanged, ScoringError, SpoiledShard
from hsoftmax.scoring.perplexity import Tally

from .assembly import put_together
from .checkpoint import Ledger, Shard
from .output import Delivery
from .spec import Order, expect_same, fingerprint
from .workspace import Workspace, hold, place, remove, whole, workspace_of

Put = Callable[[], str]  # all finished shards aside as the output; its SHA-256


def summary_of(output: Path) -> Path:
    return output.with_name(output.name + ".summary.json")


def sequences_of(output: Path) -> Path:
    return output.with_name(output.name + ".sequences.ndjson")


def errors_of(output: Path) -> Path:
    return output.with_name(output.name + ".errors.ndjson")


def is_complete(output: Path, workspace: Workspace, ledger: Ledger) -> bool:
    """Whether only the sweeping up is left."""
    summary = ledger.summary()
    return summary is not None and (workspace.assembled.exists() or _is(output, summary))


def record(
    order: Order, workspace: Workspace, ledger: Ledger, identity: dict[str, Any], put: Put
) -> None:
    """Let the ledger say that the output is put together, with all rows of an unchanged input."""
    if fingerprint(order.source.files) != identity["input"]:
        raise InputChanged("input: expected it to stay as it was, got a change while it was read")
    _expect_all_rows(order, ledger.shards())
    _record(order.delivery, workspace, ledger, identity, put)


def conclude(delivery: Delivery) -> dict[str, Any] | None:
    """Put in its place what is finished of a job that will not go on; None if nothing is.

    It needs neither the input nor the bundle, and may be called again if it stopped in here.

    Raises:
        SpoiledShard: there is one shard less now; call it again.
        ScoringError, OSError: it stopped; what is finished is kept.
    """
    output = delivery.output
    if not workspace_of(output).exists():
        return _left(output)
    with hold(output) as workspace:
        try:
            with closing(Ledger(workspace.ledger)) as ledger, forgetting(ledger):
                return _concluded(delivery, workspace, ledger)
        except sqlite3.Error as error:
            raise ScoringError(f"{workspace.ledger}: expected a ledger, got: {error}") from None


@contextmanager
def forgetting(ledger: Ledger) -> Iterator[None]:
    """A shard that the disk spoilt is no longer finished."""
    try:
        yield
    except SpoiledShard as spoiled:
        ledger.forget(spoiled.number)
        raise


def _concluded(delivery: Delivery, workspace: Workspace, ledger: Ledger) -> dict[str, Any] | None:
    identity = ledger.identity()
    if identity is None:
        return _left(delivery.output)
    if not is_complete(delivery.output, workspace, ledger):
        if not (shards := whole(workspace, ledger)):
            return _left(delivery.output)
        put = partial(put_together, delivery, workspace, shards)
        _record(delivery, workspace, ledger, identity, put)
    return deliver(delivery, workspace, ledger)


def _record(
    delivery: Delivery, workspace: Workspace, ledger: Ledger, identity: dict[str, Any], put: Put
) -> None:
    shards = ledger.shards()
    _expect_sums(shards)
    sha256 = put()
    if delivery.folder:  # no folder can be renamed onto another
        shutil.rmtree(workspace.assembled, ignore_errors=True)
    place(workspace.aside_of_assembled, workspace.assembled)
    ledger.assembled(_summary(delivery, workspace, ledger, shards, identity, sha256))


def deliver(delivery: Delivery, workspace: Workspace, ledger: Ledger) -> dict[str, Any]:
    """Put what is put together in its place; may be called again for a job that stopped in here."""
    summary = ledger.summary()
    if summary is None:
        raise ScoringError(f"{workspace.ledger}: expected the output's summary, got none")
    if workspace.assembled.exists():
        _write_beside(delivery, ledger, summary)
        place(workspace.assembled, delivery.output)
    remove(workspace)
    return summary


def finished(order: Order, identity: dict[str, Any]) -> dict[str, Any] | None:
    """The summary of the very job that left this output, None where there is none or it is gone.

    Raises:
        CallError: it was another job that left it.
    """
    summary = _summary_beside(order.output)
    if summary is None or not order.output.exists():
        return None
    expect_same(identity, summary["job"])
    return summary if _is(order.output, summary) else None


def _left(output: Path) -> dict[str, Any] | None:
    """The summary of the output that is there, if it is whole."""
    summary = _summary_beside(output)
    return summary if summary is not None and _is(output, summary) else None


def _summary_beside(output: Path) -> dict[str, Any] | None:
    try:
        return dict(json.loads(summary_of(output).read_text("utf-8")))
    except (OSError, ValueError):
        return None


def _is(output: Path, summary: dict[str, Any]) -> bool:
    return output.exists() and _size(output) == summary["size"]


def _files(output: Path) -> list[Path]:
    return sorted(output.iterdir()) if output.is_dir() else [output]


def _size(output: Path) -> int:
    return sum(path.stat().st_size for path in _files(output))


def _expect_all_rows(order: Order, shards: list[Shard]) -> None:
    """Every row is accounted for, as the input counts them."""
    rows = sum(shard.rows for shard in shards)
    if order.source.total not in (None, rows):
        raise ScoringError(f"input: expected {order.source.total} rows, got {rows}")


def _expect_sums(shards: list[Shard]) -> None:
    """Every row of each shard is one or the other."""
    for shard in shards:
        if shard.rows != shard.scored + shard.failed:
            raise ScoringError(f"shard {shard.number}: expected {shard.rows} rows, "
                               f"got {shard.scored} scored and {shard.failed} failed")  # fmt: skip


def _summary(
    delivery: Delivery,
    workspace: Workspace,
    ledger: Ledger,
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
        "model": delivery.model,
        "task": delivery.task.name,
        "job": identity,
    }
    if delivery.task.name == "perplexity":
        corpus, count = Tally(), 0
        for _, tally in ledger.sequences():
            corpus, count = corpus + tally, count + 1
        base = delivery.task.log_base
        unit = {"log_base": "e" if base is None else base, "sequences": count}
        summary |= {"corpus": {**corpus.report(base), **unit}}
    return summary


def _write_beside(delivery: Delivery, ledger: Ledger, summary: dict[str, Any]) -> None:
    """The summary, and what the output has no place for."""
    if delivery.task.name == "perplexity":
        _write(sequences_of(delivery.output), _sequence_lines(delivery, ledger))
    errors_of(delivery.output).unlink(missing_ok=True)
    if delivery.errors_beside and summary["failed"]:
        _write(errors_of(delivery.output), (flaw.encode() for flaw in ledger.flaws()))
    _write(summary_of(delivery.output), [json.dumps(summary, indent=1).encode() + b"\n"])


def _sequence_lines(delivery: Delivery, ledger: Ledger) -> Iterator[bytes]:
    for name, tally in ledger.sequences():
        record = {"sequence": name, **tally.report(delivery.task.log_base)}
        yield orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)


def _write(path: Path, lines: Iterable[bytes]) -> None:
    aside = path.with_name(path.name + ".tmp")
    with aside.open("wb") as file:
        file.writelines(lines)
        file.flush()
        os.fsync(file.fileno())
    place(aside, path)
