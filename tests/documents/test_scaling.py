"""The tables of docs/scaling.md are computed from the committed measurements."""

import json
import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.architecture.test_architecture import ROOT

PAGE = (ROOT / "docs" / "scaling.md").read_text()
MEASURED = ROOT / "docs" / "performance"
SIZES = (10**6, 10**7, 10**8, 10**9)
QUERIES, CORES, BUSY = 10**6, 32, 0.7


def read(name: str) -> Any:
    return json.loads((MEASURED / name).read_text())


def gigabytes(targets: int, precision: str) -> float:
    """Return the size of a bundle: the bytes of a million targets, in proportion."""
    (cost,) = (one for one in read("precision.json")["costs"] if one["precision"] == precision)
    return cost["MB"] / 1e3 * targets / 10**6


def kernel_us(targets: int, batch: int) -> float:
    """Return the time of a row: of a million targets as measured, of more by the root of four."""
    name, of = ("target_log_prob.json", 10**6)
    if targets > 10**6:
        name, of = ("target_log_prob_4m.json", 4 * 10**6)
    (row,) = (one for one in read(name)["rows"] if one["batch"] == batch)
    return row["ours"] * math.sqrt(targets / of)


def http_us() -> float:
    """Return the processor time of a request without its kernel."""
    (row,) = (
        one for one in read("http/target_queries.json")["rows"]
        if one["server"] == "hsoftmax" and one["connections"] == 16
    )  # fmt: skip
    (kernel,) = (
        one["us"] for one in read("http/parts.json")["rows"]
        if one["part"] == "native kernel or graph"
    )  # fmt: skip
    return row["cpu_us"] - kernel


def size_rows() -> Iterator[str]:
    for targets in SIZES:
        sizes = " | ".join(f"{gigabytes(targets, p):,.1f}" for p in ("fp32", "fp16", "int8"))
        times = " | ".join(f"{kernel_us(targets, batch):,.0f}" for batch in (1, 64))
        yield f"| 10^{round(math.log10(targets))} | {sizes} | {times} |"


def machine_rows() -> Iterator[str]:
    for targets in SIZES:
        found = []
        for us in (http_us() + kernel_us(targets, 1), kernel_us(targets, 64)):
            cores = QUERIES * us / 1e6
            found.append(f"{cores:,.0f} | {math.ceil(cores / CORES / BUSY):,}")
        yield f"| 10^{round(math.log10(targets))} | {' | '.join(found)} |"


@pytest.mark.parametrize("rows", [size_rows, machine_rows])
def test_the_tables_are_computed_from_the_measurements(rows: Callable[[], Iterator[str]]):
    for row in rows():
        assert row in PAGE, row


def test_the_constants_in_the_text_are_those_of_the_files():
    alone, together = http_us() + kernel_us(10**6, 1), kernel_us(10**6, 64)
    assert f"{alone:,.0f} cores if each is a request of its own, and {together:,.0f} if" in PAGE
    assert f"about {kernel_us(10**9, 1) / kernel_us(10**6, 1):.0f} times as long" in PAGE
    one, four = read("memory.json")["rows"]
    assert f"{http_us():.0f} µs" in PAGE
    assert f"{one['all Pss MB']:,.0f} MB" in PAGE
    assert f"{four['all Pss MB']:,.0f} MB" in PAGE
    (score,) = read("score.json")["rows"]
    assert f"{score['CPU µs a row']:.2f} µs" in PAGE
