"""Writes docs/performance.md: the bars, tables and plots of the latest figures."""

import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt

from .bars import bars

_PAGE = Path("docs/performance.md")
_HEAD = Path(__file__).parent / "performance_head.md"
_IMAGES = Path("docs/images")


def write(figures: Path) -> None:
    """Write the page and print the bars."""
    mpl.rcParams["svg.hashsalt"] = "hsoftmax"  # makes the files reproducible
    parts = [_HEAD.read_text(), _bars(figures)]
    parts += [_plot_targets(figures), _plot_growth(figures)]
    parts += [_table(path) for path in sorted(figures.glob("*.json"))]
    _PAGE.write_text("\n".join(part for part in parts if part))
    print(_bars(figures))


def _bars(figures: Path) -> str:
    rows = [f"| {b.promise} | {b.measured} | {'met' if b.met else '**not met**'} |"
            for b in bars(figures)]  # fmt: skip
    return "\n".join(["## The bars", "", "| bar | measured | |", "|---|---|---|", *rows, ""])


def _table(path: Path) -> str:
    figures = json.loads(path.read_text())
    if "speed" in figures:
        figures = {**figures, "rows": figures["speed"]}
    if "rows" not in figures:
        return f"## {path.stem}\n\n```json\n{json.dumps(figures)}\n```\n"
    names = list(figures["rows"][0])
    lines = ["| " + " | ".join(names) + " |", "|" + "---:|" * len(names)]
    lines += ["| " + " | ".join(_text(row[n]) for n in names) + " |" for row in figures["rows"]]
    return "\n".join([f"## {figures['title']}", "", f"{figures['machine']}, `{path.name}`", "",
                      *lines, ""])  # fmt: skip


def _text(value: Any) -> str:  # noqa: ANN401
    if isinstance(value, float):
        return f"{value:.2f}" if value < 10 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _plot_targets(figures: Path) -> str:
    path = figures / "target_log_prob.json"
    if not path.is_file():
        return ""
    content = json.loads(path.read_text())
    figure, axes = plt.subplots(figsize=(7, 4))
    for name in ("ours", "bf16", "int8", "graph", "textbook", "theano", "torch", "numpy", "read"):
        costs = [(r["batch"], r[name]) for r in content["rows"] if isinstance(r.get(name), float)]
        if costs:
            axes.plot(*zip(*costs, strict=True), marker="o", label=name)
    axes.set(xscale="log", yscale="log", xlabel="rows in the batch", ylabel="µs a row")
    axes.legend()
    return _saved(figure, "target_log_prob", content["title"])


def _plot_growth(figures: Path) -> str:
    path = figures / "growth.json"
    if not path.is_file():
        return ""
    rows = json.loads(path.read_text())["rows"]
    figure, axes = plt.subplots(figsize=(7, 4))
    targets = [row["targets"] for row in rows]
    for name in [name for name in rows[0] if name.endswith(" rows")]:
        axes.plot(targets, [row[name] for row in rows], marker="o", label=name)
    start = rows[0][next(name for name in rows[0] if name.endswith(" rows"))]
    axes.plot(targets, [start * (t / targets[0]) ** 0.5 for t in targets], ls="--", label="√N")
    axes.set(xscale="log", yscale="log", xlabel="targets", ylabel="µs a row")
    axes.legend()
    return _saved(figure, "growth", "cost of a target query against the number of targets")


def _saved(figure: plt.Figure, name: str, title: str) -> str:
    figure.tight_layout()
    figure.savefig(_IMAGES / f"{name}.svg", metadata={"Date": None})
    plt.close(figure)
    return f"![{title}](images/{name}.svg)\n"
