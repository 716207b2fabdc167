"""Writes docs/performance-http.md: a text, and the tables of the last measurements."""

import json
from pathlib import Path
from typing import Any

_PAGE = Path("docs/performance-http.md")
_HEAD = Path(__file__).parent / "performance_head.md"
_FIGURES = Path("docs/performance/http")

_TITLES = {
    "target_queries": "One row, one target",
    "infer_queries": "One row, one target, as raw tensors of the Open Inference Protocol",
    "triton": "Triton, with the same requests",
    "parts": "Processor time of one row and one target, without sockets",
    "full_distributions": "Full distributions of 40,000 targets",
    "frameworks": "Serving frameworks, 16 connections",
    "protocols": "uvicorn's protocol classes",
    "hostile": "Hostile clients",
    "overload": "Three times the load that can be sustained",
}


def save(results: dict[str, Any]) -> None:
    """Store the results, one file a benchmark, and write the page from all stored results."""
    _FIGURES.mkdir(parents=True, exist_ok=True)
    for name in results.keys() & _TITLES.keys():
        found = {"machine": results["machine"], "rows": results[name]}
        (_FIGURES / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n")
    tables = [_table(name) for name in _TITLES if (_FIGURES / f"{name}.json").is_file()]
    _PAGE.write_text("\n".join([_HEAD.read_text(), *tables]))


def _table(name: str) -> str:
    found = json.loads((_FIGURES / f"{name}.json").read_text())
    rows = found["rows"]
    if name == "overload":  # few rows with many columns
        rows = [{"": key, **{f"{r['rows']} rows": r[key] for r in rows}} for key in rows[0]][1:]
    columns = list(max(rows, key=len))
    lines = ["| " + " | ".join(columns) + " |", "|" + "---:|" * len(columns)]
    lines += ["| " + " | ".join(_text(row.get(c, "")) for c in columns) + " |" for row in rows]
    machine = ", ".join(f"{key} {value}" for key, value in found["machine"].items())
    return "\n".join([f"## {_TITLES[name]}", "", f"{machine}, `{name}.json`", "", *lines, ""])


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.2f}" if abs(value) < 10 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
