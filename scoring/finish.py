"""The end of a job: counts checked, shards put together, one rename, and a summary beside it."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import orjson

from .errors import ScoringError
from .ledger import Ledger, Shard
from .order import Order, expect_same, fingerprint
from .perplexity import Tally
from .workspace import Workspace, checked, place, remove, sync


def summary_of(output: Path) -> Path:
    return output.with_name(output.name + ".summary.json")


def sequences_of(output: Path) -> Path:
    return output.with_name(output.name + ".sequences.ndjson")


def errors_of(output: Path) -> Path:
    return output.with_name(output.name + ".errors.ndjson")


def is_complete(order: Order, workspace: Workspace, ledger: Ledger) -> bool:
    """Whether only the sweeping up is left."""
    summary = ledger.summary()
    return summary is not None and (workspace.assembled.exists() or _is(order.output, summary))


def finish(
    order: Order, workspace: Workspace, ledger: Ledger, identity: dict[str, Any]
) -> dict[str, Any]:
    """Put the output in its place; may be called again for a job that stopped in here."""
    if fingerprint(order.source.files) != identity["input"]:
        raise ScoringError("input: expected it to stay as it was, got a change while it was read")
    summary = ledger.summary()
    if summary is None or not is_complete(order, workspace, ledger):
        shards = ledger.shards()
        _expect_all_rows(order, shards)
        _assemble(order, workspace, checked(workspace, ledger, shards))
        summary = _summary(order, workspace, ledger, shards, identity)
        ledger.assembled(summary)
    if workspace.assembled.exists():
        _write_beside(order, ledger, summary)
        place(workspace.assembled, order.output)
    remove(workspace)
    return summary


def finished(order: Order, identity: dict[str, Any]) -> dict[str, Any] | None:
    """The summary of the very job that left this output, None where there is none or it is gone.

    Raises:
        CallError: it was another job that left it.
    """
    try:
        summary = json.loads(summary_of(order.output).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    if not order.output.exists():
        return None
    expect_same(identity, summary["job"])
    return summary if _is(order.output, summary) else None


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
    """Every row is accounted for: in all, in each shard, and as the input counts them."""
    for shard in shards:
        if shard.rows != shard.scored + shard.failed:
            raise ScoringError(f"shard {shard.number}: expected {shard.rows} rows, "
                               f"got {shard.scored} scored and {shard.failed} failed")  # fmt: skip
    rows = sum(shard.rows for shard in shards)
    if order.source.total not in (None, rows):
        raise ScoringError(f"input: expected {order.source.total} rows, got {rows}")


def _assemble(order: Order, workspace: Workspace, shards: Iterator[Path]) -> None:
    """All shards as one file, or each as one of a folder; an empty one where there are none."""
    aside = workspace.assembled.with_suffix(".tmp")
    if order.folder:
        for before in (aside, workspace.assembled):  # no folder can be renamed onto another
            shutil.rmtree(before, ignore_errors=True)
        aside.mkdir()
        for i, shard in enumerate(chain([next(shards, None)], shards)):
            part = aside / f"part-{i:05}.{order.format.name}"
            _put_together(order, [shard] if shard else [], part)
    else:
        _put_together(order, shards, aside)
    place(aside, workspace.assembled)


def _put_together(order: Order, shards: Iterable[Path], path: Path) -> None:
    with path.open("wb") as file:
        order.format.assemble(shards, file, order.layout)
        file.flush()
        sync(file.fileno())


def _summary(
    order: Order,
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
        "model": order.facts.name,
        "task": order.task.name,
        "job": identity,
    }
    if order.task.name == "perplexity":
        corpus, count = Tally(), 0
        for _, tally in ledger.sequences():
            corpus, count = corpus + tally, count + 1
        base = order.task.log_base
        unit = {"log_base": "e" if base is None else base, "sequences": count}
        summary |= {"corpus": {**corpus.report(base), **unit}}
    return summary


def _write_beside(order: Order, ledger: Ledger, summary: dict[str, Any]) -> None:
    """The summary, and what the output has no place for."""
    if order.task.name == "perplexity":
        _write(sequences_of(order.output), _sequence_lines(order, ledger))
    errors_of(order.output).unlink(missing_ok=True)
    if order.format.mute and summary["failed"]:
        _write(errors_of(order.output), (flaw.encode() for flaw in ledger.flaws()))
    _write(summary_of(order.output), [json.dumps(summary, indent=1).encode() + b"\n"])


def _sequence_lines(order: Order, ledger: Ledger) -> Iterator[bytes]:
    for name, tally in ledger.sequences():
        record = {"sequence": name, **tally.report(order.task.log_base)}
        yield orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)


def _write(path: Path, lines: Iterable[bytes]) -> None:
    aside = path.with_name(path.name + ".tmp")
    with aside.open("wb") as file:
        file.writelines(lines)
        file.flush()
        os.fsync(file.fileno())
    place(aside, path)
