"""The end of a job: counts checked, shards put together, one rename, and a summary beside it."""

import hashlib
import json
import os
import shutil
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from itertools import chain
from pathlib import Path
from typing import Any

import orjson

from .delivery import Delivery
from .errors import InputChanged, ScoringError
from .ledger import Ledger, Shard
from .order import Order, expect_same, fingerprint
from .perplexity import Tally
from .workspace import Workspace, checked, hold, place, remove, sync, whole, workspace_of


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


def finish(
    order: Order, workspace: Workspace, ledger: Ledger, identity: dict[str, Any]
) -> dict[str, Any]:
    """Put the output in its place; may be called again for a job that stopped in here."""
    if fingerprint(order.source.files) != identity["input"]:
        raise InputChanged("input: expected it to stay as it was, got a change while it was read")
    if not is_complete(order.output, workspace, ledger):
        _expect_all_rows(order, ledger.shards())
    return _deliver(order.delivery, workspace, ledger, identity)


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
            with closing(Ledger(workspace.ledger)) as ledger:
                identity = ledger.identity()
                if identity is None or not (
                    is_complete(output, workspace, ledger) or whole(workspace, ledger)
                ):
                    return _left(output)
                return _deliver(delivery, workspace, ledger, identity)
        except sqlite3.Error as error:
            raise ScoringError(f"{workspace.ledger}: expected a ledger, got: {error}") from None


def _deliver(
    delivery: Delivery, workspace: Workspace, ledger: Ledger, identity: dict[str, Any]
) -> dict[str, Any]:
    """All finished shards, as the output."""
    summary = ledger.summary()
    if summary is None or not is_complete(delivery.output, workspace, ledger):
        shards = ledger.shards()
        _expect_sums(shards)
        _assemble(delivery, workspace, checked(workspace, ledger, shards))
        summary = _summary(delivery, workspace, ledger, shards, identity)
        ledger.assembled(summary)
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


def _sha256(output: Path) -> str:
    """Of the output's bytes; of a folder, those of its files one after another."""
    digest = hashlib.sha256()
    for path in _files(output):
        with path.open("rb") as file:
            while part := file.read(2**20):
                digest.update(part)
    return digest.hexdigest()


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


def _assemble(delivery: Delivery, workspace: Workspace, shards: Iterator[Path]) -> None:
    """All shards as one file, or each as one of a folder; an empty one where there are none."""
    aside = workspace.assembled.with_suffix(".tmp")
    if delivery.folder:
        for before in (aside, workspace.assembled):  # no folder can be renamed onto another
            shutil.rmtree(before, ignore_errors=True)
        aside.mkdir()
        for i, shard in enumerate(chain([next(shards, None)], shards)):
            part = aside / f"part-{i:05}.{delivery.format.name}"
            _put_together(delivery, [shard] if shard else [], part)
    else:
        _put_together(delivery, shards, aside)
    place(aside, workspace.assembled)


def _put_together(delivery: Delivery, shards: Iterable[Path], path: Path) -> None:
    with path.open("wb") as file:
        delivery.format.assemble(shards, file, delivery.layout)
        file.flush()
        sync(file.fileno())


def _summary(
    delivery: Delivery,
    workspace: Workspace,
    ledger: Ledger,
    shards: list[Shard],
    identity: dict[str, Any],
) -> dict[str, Any]:
    summary = {
        "rows_in": sum(shard.rows for shard in shards),
        "scored": sum(shard.scored for shard in shards),
        "failed": sum(shard.failed for shard in shards),
        "size": _size(workspace.assembled),
        "sha256": _sha256(workspace.assembled),
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
