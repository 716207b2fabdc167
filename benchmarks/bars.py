"""The bars this project holds itself to, each with what was measured, met or not."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Rows = list[Mapping[str, Any]]


@dataclass(frozen=True)
class Bar:
    """One promise and the figure that keeps or breaks it."""

    promise: str
    measured: str
    met: bool


def bars(figures: Path) -> Iterator[Bar]:
    """Every bar whose figures are there."""
    if (figures / "target_log_prob.json").is_file():
        yield from _target_bars(figures)
    for name, judge in _SIMPLE.items():
        if (figures / f"{name}.json").is_file():
            yield from judge(_rows(figures, name))
    if (figures / "precision.json").is_file():
        yield from _precision_bars(json.loads((figures / "precision.json").read_text()))


def _rows(figures: Path, name: str) -> Rows:
    rows: Rows = json.loads((figures / f"{name}.json").read_text())["rows"]
    return rows


def _target_bars(figures: Path) -> Iterator[Bar]:
    rows = _rows(figures, "target_log_prob")
    with_textbook = [row for row in rows if isinstance(row["x textbook"], float)]
    large = [row for row in rows if row["batch"] >= 256]
    yield _least("target query, 2 x the textbook graph at 256 rows and more", 2, {
        row["batch"]: row["x textbook"] for row in with_textbook if row["batch"] >= 256
    })  # fmt: skip
    yield _least("target query, never slower than the textbook graph", 1, {
        row["batch"]: row["x textbook"] for row in with_textbook
    })  # fmt: skip
    yield _least("target query, 0.7 of the rate of reading the blocks, 256 rows and more", 0.7, {
        row["batch"]: row["x read"] for row in large
    })  # fmt: skip
    ours = {str(row["batch"]): row["ours"] for row in rows}
    theano = figures / "theano_h_softmax.json"
    if theano.is_file():
        found = json.loads(theano.read_text())
        ratios = {int(n): us / ours[n] for n, us in found.items() if n in ours}
        yield _least("target query, as fast as Theano's h_softmax at every batch", 1, ratios)
    torch = figures / "pytorch_eager.json"
    if torch.is_file():
        found = json.loads(torch.read_text())["two-level"]
        ratios = {int(n): us / ours[n] for n, us in found.items() if n in ours}
        yield _least("target query, 4 x PyTorch eager (gather + bmm)", 4, ratios)


def _top_k_bars(rows: Rows) -> Iterator[Bar]:
    peaked = [row for row in rows if row["scale"] >= 1 and row["batch"] == 1]
    flat = [row for row in rows if row["scale"] < 1]
    yield _least("top-k of one peaked row, 50 x the full distribution", 50, {
        f"scale {row['scale']}": row["x full"] for row in peaked
    })  # fmt: skip
    yield _least("top-k of flat rows, no slower than 1.2 x the full distribution", 1 / 1.2, {
        f"{row['batch']} rows, scale {row['scale']}": row["x full"] for row in flat
    })  # fmt: skip


def _log_probs_bars(rows: Rows) -> Iterator[Bar]:
    ratios = {row["batch"]: row["x sgemm, new"] for row in rows}
    yield _least("full distribution, 0.8 of a bare SGEMM that allocates its answer", 0.8, ratios)
    ratios = {row["batch"]: row["x sgemm"] for row in rows}
    yield _least("full distribution, 0.8 of a bare SGEMM into an array that is there", 0.8, ratios)


def _growth_bars(rows: Rows) -> Iterator[Bar]:
    first, last = rows[0], rows[-1]
    times = (last["targets"] / first["targets"]) ** 0.5
    for name in [name for name in first if name.endswith(" rows")]:
        got = last[name] / first[name]
        yield Bar(
            f"target query, {name}: cost grows no faster than the root of N "
            f"({first['targets']:,} to {last['targets']:,} targets: {times:.0f} x)",
            f"{got:.1f} x",
            got <= times,
        )


def _memory_bars(rows: Rows) -> Iterator[Bar]:
    block, weights = 1000 * 256 * 4 / 1e6, rows[0]["bundle MB"]
    peak = max(row["query peak MB"] for row in rows)
    yield Bar(
        f"256-row query needs less than 4 blocks ({4 * block:.1f} MB)",
        f"{peak:.1f} MB",
        peak < 4 * block,
    )
    many = rows[-1]
    shared = many["all Pss MB"] - many["processes"] * many["anonymous MB each"]
    yield Bar(
        f"{many['processes']} processes hold the weights once ({weights:.0f} MB)",
        f"{shared:.0f} MB of Pss that is not their own",
        shared < 1.1 * weights,
    )
    load = rows[0]["load ms"]
    yield Bar("1 GB of weights loads in less than 1 s", f"{load:.0f} ms", load < 1000)


def _accuracy_bars(rows: Rows) -> Iterator[Bar]:
    errors = ("full, max error", "pairs, max error")
    ordinary = {row["rows"]: max(float(row[name]) for name in errors)
                for row in rows if row["largest logit"] < _EXTREME}  # fmt: skip
    extreme = {row["rows"]: float(row["relative to logit"])
               for row in rows if row["largest logit"] >= _EXTREME}  # fmt: skip
    finite = all(row["all finite"] for row in rows)
    shown = [", ".join(f"{at}: {error:.1e}" for at, error in of.items())
             for of in (ordinary, extreme)]  # fmt: skip
    yield Bar("fp32 graph, at most 1e-5 from float64 in log p", shown[0],
              max(ordinary.values()) <= 1e-5)  # fmt: skip
    yield Bar("the same at logits of 10,000: finite, and at most 1e-4 of the logit", shown[1],
              finite and max(extreme.values()) <= 1e-4)  # fmt: skip


def _cold_start_bars(rows: Rows) -> Iterator[Bar]:
    of = {row["hashes"]: row["up to answer"] for row in rows if row["of five"] == "median"}
    shown = ", ".join(f"hashes {how}: {ms:.0f} ms" for how, ms in of.items())
    promise = "1 GB answers in less than 1 s of the process being up"
    yield Bar(promise, shown, of["compared"] < 1000)


def _precision_bars(content: Mapping[str, Any]) -> Iterator[Bar]:
    few = {row["batch"]: row["x int8"] for row in content["speed"] if row["batch"] <= 64}
    yield _least("int8, 1.5 x fp32 at 64 rows and fewer", 1.5, few)
    of = {row["precision"]: row for row in content["costs"]}
    part = of["int8"]["x bytes"]
    yield Bar("int8, about a quarter of the bytes", f"{part:.2f}", part < 0.27)
    before, after = (float(of[name]["perplexity"]) for name in ("fp32", "int8"))
    worse = after / before - 1
    yield Bar("int8, held-out perplexity within 0.5 % of fp32", f"{worse:+.3%}", worse <= 0.005)


def _score_bars(rows: Rows) -> Iterator[Bar]:
    (row,) = rows
    shown = f"{row['rows']:,} rows"
    yield _least("file to file, 0.8 of the rate of the bare graph at its best batch", 0.8, {
        shown: row["ratio"]
    })  # fmt: skip
    peak = row["peak RSS MB"]
    yield Bar(
        f"file to file, {shown}: less than 1 GB resident throughout", f"{peak:.0f} MB", peak < 1000
    )


def _least(promise: str, bar: float, ratios: Mapping[Any, float]) -> Bar:
    """Met where the smallest ratio reaches the bar."""
    shown = ", ".join(f"{at}: {ratio:.2f}" for at, ratio in ratios.items())
    return Bar(promise, shown, bool(ratios) and min(ratios.values()) >= bar)


_EXTREME = 1000  # a logit beyond it is none of a model that has learnt

_SIMPLE = {
    "accuracy": _accuracy_bars,
    "cold_start": _cold_start_bars,
    "top_k": _top_k_bars,
    "log_probs": _log_probs_bars,
    "growth": _growth_bars,
    "memory": _memory_bars,
    "score": _score_bars,
}
