"""Command-line options that several commands share."""

from collections.abc import Callable, Sequence
from typing import Any

import click


def choice(
    flag: str, *name: str, among: Sequence[str], help: str
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Returns an option with a fixed set of values, of which the first is the default."""
    kind = click.Choice(among)
    return click.option(flag, *name, type=kind, default=among[0], show_default=True, help=help)
