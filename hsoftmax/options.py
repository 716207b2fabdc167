"""Command-line options that several commands share."""

from collections.abc import Callable, Sequence
from typing import Any

import click

check_hashes = click.option(
    "--check-hashes/--no-check-hashes",
    default=True,
    envvar="HSOFTMAX_CHECK_HASHES",  # as for `serve`
    show_default=True,
    help="Compare every file's SHA-256 with the manifest before BUNDLE is used.",
)


def choice(
    flag: str, *name: str, among: Sequence[str], help: str
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Returns an option with a fixed set of values, of which the first is the default."""
    kind = click.Choice(among)
    return click.option(flag, *name, type=kind, default=among[0], show_default=True, help=help)
