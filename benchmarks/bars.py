"""Performance bars that the project must meet, each with the measured figure."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

FigureRows = list[Mapping[str, Any]]


@dataclass(frozen=True)
class PerformanceBar:
    """One performance requirement, and the figure that meets or misses it."""

    promise: str
    measured: str
    met: bool


def bars(figures: Path) -> Iterator[PerformanceBar]:
    """Yield every bar whose figures exist."""
    if (figures / "target_log_prob.json").is_file():
        yield from _target_bars(figures)
    for name, judge in _BARS_BY_BENCHMARK.items():
        if (figures / f"{name}.json").is_file():
            yield from judge(_rows(figures, name))
    if (figures / "precision.json").is_file():
        yield from _precision_bars(json.loads((figures / "precision.json").read_text()))


def _rows(figures: Path, name: str) -> FigureRows:
    rows: FigureRows = json.loads((figures / f"{name}.json").read_text())["rows"]
    return rows


def _target_bars(figures: Path) -> Iterator[PerformanceBar]:
    rows = _rows(figures, "target_log_prob")
    yield from _ratio_bars(
        rows,
        ("target query, native, 1.25 x the textbook graph", 1.25, "textbook"),
        ("target query, native, 1.3 x Theano's h_softmax", 1.3, "theano"),
        ("target query, native, 4 x PyTorch eager (gather + bmm)", 4, "torch"),
        (
            "target query, native, 0.8 of reading the blocks and multiplying the clusters",
            0.8,
            "floor",
        ),
    )
    many = [row for row in rows if row["batch"] >= 8]
    for name, bar in (("bf16", 1.2), ("int8", 1.5)):
        speeds = {batch: 1 / ratio for batch, ratio in _ratios(many, name).items()}
        if speeds:
            promise = f"target query, native, {name} {bar} x float32 at 8 rows and more"
            yield _minimum_bar(promise, bar, speeds)
    by_textbook = _ratios(rows, "textbook")
    portable = {
        batch: by_textbook[batch] / ratio
        for batch, ratio in _ratios(rows, "graph").items()
        if batch in by_textbook
    }
    large = {batch: ratio for batch, ratio in portable.items() if batch >= 256}
    if portable:
        yield _minimum_bar("target query, graph, 0.9 of the textbook graph", 0.9, portable)
    if large:
        promise = "target query, graph, 2 x the textbook graph at 256 rows and more"
        yield _minimum_bar(promise, 2, large)


def _smaller_target_bars(targets: str, rows: FigureRows) -> Iterator[PerformanceBar]:
    promise = f"target query, {targets} targets, native, 1.15 x the textbook graph"
    yield from _ratio_bars(rows, (promise, 1.15, "textbook"))


def _fasttext_bars(rows: FigureRows) -> Iterator[PerformanceBar]:
    for name, bar in (("peaked", 1.2), ("flat", 20.0)):
        ratios = {
            f"{row['batch']} rows, k = {row['k']}": row["x fastText"]
            for row in rows
            if row["distribution"] == name and "x fastText" in row
        }
        if ratios:
            yield _minimum_bar(f"top-k of a tree, {name} rows, {bar:g} x fastText", bar, ratios)


def _gensim_bars(rows: FigureRows) -> Iterator[PerformanceBar]:
    ratios = {f"{row['pairs']} pairs": row["x gensim"] for row in rows if "x gensim" in row}
    if ratios:
        yield _minimum_bar("paths of a tree, 1.5 x gensim", 1.5, ratios)


def _ratio_bars(rows: FigureRows, *wanted: tuple[str, float, str]) -> Iterator[PerformanceBar]:
    """Yield a bar for each promise, minimum and name that these figures have."""
    for promise, bar, name in wanted:
        ratios = _ratios(rows, name)
        if ratios:
            yield _minimum_bar(promise, bar, ratios)


def _ratios(rows: FigureRows, name: str) -> dict[int, float]:
    """Return by batch how many times as long as ours this one takes, where it was measured."""
    ratios = {row["batch"]: row.get(f"x {name}") for row in rows}
    return {batch: ratio for batch, ratio in ratios.items() if isinstance(ratio, float)}


def _top_k_bars(rows: FigureRows) -> Iterator[PerformanceBar]:
    peaked = [row for row in rows if row["scale"] >= 1 and row["batch"] == 1]
    flat = [row for row in rows if row["scale"] < 1]
    yield _minimum_bar(
        "top-k of one peaked row, 50 x the full distribution",
        50,
        {f"scale {row['scale']}": row["x full"] for row in peaked},
    )
    yield _minimum_bar(
        "top-k of flat rows, no slower than 1.2 x the full distribution",
        1 / 1.2,
        {f"{row['batch']} rows, scale {row['scale']}": row["x full"] for row in flat},
    )


def _log_probs_bars(rows: FigureRows) -> Iterator[PerformanceBar]:
    ratios = {row["batch"]: row["x sgemm, new"] for row in rows}
    yield _minimum_bar(
        "full distribution, 0.8 of a bare SGEMM that allocates its answer", 0.8, ratios
    )
    ratios = {row["batch"]: row["x sgemm"] for row in rows}
    yield _minimum_bar(
        "full distribution, 0.8 of a bare SGEMM into an array that is there", 0.8, ratios
    )


def _growth_bars(rows: FigureRows) -> Iterator[PerformanceBar]:
    first, last = rows[0], rows[-1]
    max_growth = (last["targets"] / first["targets"]) ** 0.5
    for name in [name for name in first if name.endswith(" rows")]:
        growth = last[name] / first[name]
        yield PerformanceBar(
            f"target query, {name}: cost grows no faster than the root of N "
            f"({first['targets']:,} to {last['targets']:,} targets: {max_growth:.0f} x)",
            f"{growth:.1f} x",
            growth <= max_growth,
        )


def _memory_bars(rows: FigureRows) -> Iterator[PerformanceBar]:
    block, weights = 1000 * 256 * 4 / 1e6, rows[0]["bundle MB"]
    peak = max(row["query peak MB"] for row in rows)
    yield PerformanceBar(
        f"256-row query needs less than 4 blocks ({4 * block:.1f} MB)",
        f"{peak:.1f} MB",
        peak < 4 * block,
    )
    last = rows[-1]
    shared = last["all Pss MB"] - last["processes"] * last["anonymous MB each"]
    yield PerformanceBar(
        f"{last['processes']} processes hold the weights once ({weights:.0f} MB)",
        f"{shared:.0f} MB of Pss that is not their own",
        shared < 1.1 * weights,
    )
    load = rows[0]["load ms"]
    yield PerformanceBar("1 GB of weights loads in less than 1 s", f"{load:.0f} ms", load < 1000)


def _accuracy_bars(rows: FigureRows) -> Iterator[PerformanceBar]:
    errors = ("full, max error", "pairs, max error")
    ordinary = {
        row["rows"]: max(float(row[name]) for name in errors)
        for row in rows
        if row["largest logit"] < _MIN_EXTREME_LOGIT
    }
    extreme = {
        row["rows"]: float(row["relative to logit"])
        for row in rows
        if row["largest logit"] >= _MIN_EXTREME_LOGIT
    }
    finite = all(row["all finite"] for row in rows)
    measured = [
        ", ".join(f"{at}: {error:.1e}" for at, error in by_rows.items())
        for by_rows in (ordinary, extreme)
    ]
    yield PerformanceBar(
        "fp32 graph, at most 1e-5 from float64 in log p",
        measured[0],
        max(ordinary.values()) <= 1e-5,
    )
    yield PerformanceBar(
        "the same at logits of 10,000: finite, and at most 1e-4 of the logit",
        measured[1],
        finite and max(extreme.values()) <= 1e-4,
    )


def _cold_start_bars(rows: FigureRows) -> Iterator[PerformanceBar]:
    times = {row["hashes"]: row["up to answer"] for row in rows if row["of five"] == "median"}
    measured = ", ".join(f"hashes {checking}: {ms:.0f} ms" for checking, ms in times.items())
    promise = "1 GB answers in less than 1 s of the process being up"
    yield PerformanceBar(promise, measured, times["compared"] < 1000)


def _precision_bars(content: Mapping[str, Any]) -> Iterator[PerformanceBar]:
    few = {row["batch"]: row["x int8"] for row in content["speed"] if row["batch"] <= 64}
    yield _minimum_bar("int8, 1.5 x fp32 at 64 rows and fewer", 1.5, few)
    costs = {row["precision"]: row for row in content["costs"]}
    ratio = costs["int8"]["x bytes"]
    yield PerformanceBar("int8, about a quarter of the bytes", f"{ratio:.2f}", ratio < 0.27)
    before, after = (float(costs[name]["perplexity"]) for name in ("fp32", "int8"))
    increase = after / before - 1
    yield PerformanceBar(
        "int8, held-out perplexity within 0.5 % of fp32", f"{increase:+.3%}", increase <= 0.005
    )


def _score_bars(rows: FigureRows) -> Iterator[PerformanceBar]:
    (row,) = rows
    label = f"{row['rows']:,} rows"
    yield _minimum_bar(
        "file to file, 0.8 of the rate of the bare graph at its best batch",
        0.8,
        {label: row["ratio"]},
    )
    peak = row["peak RSS MB"]
    yield PerformanceBar(
        f"file to file, {label}: less than 1 GB resident throughout", f"{peak:.0f} MB", peak < 1000
    )


def _score_text_bars(rows: FigureRows) -> Iterator[PerformanceBar]:
    for row in rows:
        name, ratio = row["distribution"], row["fastText / ours, processor"]
        promise = f"texts of a {name} model from file to file, {row['bar']:g} x fastText"
        promise += ", by processor time"
        yield _minimum_bar(promise, row["bar"], {name: ratio})


def _minimum_bar(promise: str, bar: float, ratios: Mapping[Any, float]) -> PerformanceBar:
    """Return a bar that is met if the smallest ratio reaches it."""
    measured = ", ".join(f"{at}: {ratio:.2f}" for at, ratio in ratios.items())
    return PerformanceBar(promise, measured, bool(ratios) and min(ratios.values()) >= bar)


_MIN_EXTREME_LOGIT = 1000  # trained models have smaller logits

_BARS_BY_BENCHMARK = {
    "accuracy": _accuracy_bars,
    "cold_start": _cold_start_bars,
    "top_k": _top_k_bars,
    "log_probs": _log_probs_bars,
    "growth": _growth_bars,
    "memory": _memory_bars,
    "score": _score_bars,
    "score_text": _score_text_bars,
    "target_log_prob_10k": partial(_smaller_target_bars, "10k"),
    "target_log_prob_100k": partial(_smaller_target_bars, "100k"),
    "fasttext": _fasttext_bars,
    "gensim": _gensim_bars,
}
