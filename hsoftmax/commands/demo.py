"""`hsoftmax demo`: export the sample, serve it, ask it."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from hsoftmax import service
    from hsoftmax.demo.queries import Comparison, WordPrediction

_SECONDS_TO_START = 60


@click.command("demo")
@click.option("--check", is_flag=True, help="Compare the answers with the reference, and exit.")
@click.option("--port", type=click.IntRange(0, 65535), help="Default 8000; a free one for --check.")
@click.option("--repository", type=click.Path(path_type=Path), help="Where the bundle is kept.")
def command(check: bool, port: int | None, repository: Path | None) -> int:
    """Serve a trained language model and ask it, in words, for likely next words."""
    from rich.console import Console

    from hsoftmax import service
    from hsoftmax.client import Client
    from hsoftmax.demo.queries import compare, query_sample
    from hsoftmax.demo.sample_model import (
        SAMPLE_NAME,
        default_repository,
        export_sample,
        find_sample,
    )

    console = Console()
    sample = find_sample()
    made = export_sample(sample, repository or default_repository())
    console.print(f"bundle  {made.path}", soft_wrap=True)
    settings = service.Settings(
        repository=made.path.parent.parent,
        port=port if port is not None else (_free_port() if check else 8000),
        log_level="warning",
    )

    def converse() -> None:
        with Client(f"http://{settings.host}:{settings.port}") as client:
            client.wait_until_ready(_SECONDS_TO_START)
            console.print(f"serving {client.base_url}/v1/models/{SAMPLE_NAME}\n", soft_wrap=True)
            answers = query_sample(client)
            for answer in answers:
                console.print(_shown(answer), "")
            if check:
                _report(console, list(compare(client, sample, made, answers)))
            else:
                console.print(_invitation(client.base_url, SAMPLE_NAME), soft_wrap=True)

    return _serve_and(settings, converse, stop=check)


def _serve_and(settings: service.Settings, converse: Callable[[], None], *, stop: bool) -> int:
    """Serve in the main thread, where signals arrive, and converse in another."""
    from hsoftmax import service

    errors: list[Exception] = []

    def talk() -> None:
        try:
            converse()
        except Exception as error:
            errors.append(error)
        if stop or errors:
            os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=talk, daemon=True)
    thread.start()
    service.serve(settings)
    if errors:
        raise errors[0]
    return 0


def _shown(answer: WordPrediction) -> Table:
    from rich.table import Table

    table = Table(title=f"{answer.text} …", title_justify="left", min_width=60)
    table.add_column("next word")
    table.add_column("probability", justify="right")
    for word, probability in zip(answer.words, answer.probabilities, strict=True):
        table.add_row(word, f"{probability:.4f}")
    return table


def _invitation(url: str, model: str) -> str:
    """The command for a question of the user's own."""
    question = """--json '{"inputs": ["health care and social"]}'"""
    return (
        f"Ask it:\n\n    curl -s {url}/v1/models/{model}/top_k {question}\n\n"
        "Still serving; stop with Ctrl-C."
    )


def _report(console: Console, comparisons: list[Comparison]) -> None:
    from hsoftmax.models import UserError

    wrong = [c for c in comparisons if not c.passed]
    if wrong:
        raise UserError(
            f"{wrong[0].name}: expected {wrong[0].expected} by the reference, got {wrong[0].got}"
        )
    for comparison in comparisons[-2:]:
        console.print(f"{comparison.name}: {comparison.got:.6g}")
    console.print(f"{len(comparisons)} answers over HTTP equal the reference.")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
