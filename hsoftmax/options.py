"""Options that several commands have, each of another name."""

from collections.abc import Callable, Sequence
from typing import Any

import click


def choice(
    flag: str, *name: str, among: Sequence[str], help: str
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """An option whose value is one of these; the first is its default."""
    kind = click.Choice(among)
    return click.option(flag, *name, type=kind, default=among[0], show_default=True, help=help)
