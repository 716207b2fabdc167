"""Command-line options that benchmarks of two-level models share, and a title for the model."""

import argparse
from pathlib import Path


def two_level_options(description: str) -> argparse.ArgumentParser:
    """Return a parser for the model's sizes and the JSON file; callers add further options."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--clusters", type=int, default=1000)
    parser.add_argument("--block", type=int, default=1000)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--json", type=Path)
    return parser


def integers(text: str) -> list[int]:
    """Parse integers such as 1,8,64."""
    return [int(part) for part in text.split(",")]


def sizes(options: argparse.Namespace) -> str:
    return f"{options.clusters} x {options.block} targets, {options.hidden} wide"
