"""What every question about a two-level model may be told, and how it is named."""

import argparse
from pathlib import Path


def two_level_options(question: str) -> argparse.ArgumentParser:
    """The model's sizes, and where figures go; a question adds its own to them."""
    parser = argparse.ArgumentParser(description=question.splitlines()[0])
    parser.add_argument("--clusters", type=int, default=1000)
    parser.add_argument("--block", type=int, default=1000)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--json", type=Path)
    return parser


def integers(text: str) -> list[int]:
    """As in 1,8,64."""
    return [int(part) for part in text.split(",")]


def sizes(options: argparse.Namespace) -> str:
    return f"{options.clusters} x {options.block} targets, {options.hidden} wide"
