"""Parses the code blocks of a page in their order.

| block | is |
|---|---|
| `console` | commands, each after `$ `, which may continue after a `\\`, with their output |
| `python` | a program; a `text` block directly after it is what it prints |
| other | text for the reader |

`…` in an output stands for any text.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from tests.console import console_commands

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)
_OUTPUT = re.compile(r"\n```text\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Program:
    """A Python program, and the output that the page shows, or None."""

    code: str
    shown: str | None


@dataclass(frozen=True)
class Command:
    """A command for a shell, and the output that the page shows."""

    line: str
    shown: str


Step = Program | Command


def languages(page: Path) -> list[str]:
    """Return the languages of all blocks in order."""
    return [block[1] for block in _BLOCK.finditer(page.read_text("utf-8"))]


def steps(page: Path) -> list[Step]:
    """Return all programs and commands of a page in order."""
    text = page.read_text("utf-8")
    found: list[Step] = []
    for block in _BLOCK.finditer(text):
        language, content = block.groups()
        if language == "python":
            output = _OUTPUT.match(text, block.end())
            found.append(Program(content, output and output[1]))
        elif language == "console":
            whole = f"```console\n{content}```"
            found += [Command(line.strip(), shown) for line, shown in console_commands(whole)]
    return found


def matches(shown: str, printed: str) -> bool:
    """Return True if the output is as shown, apart from white space; `…` matches any text."""
    pattern = ".*?".join(re.escape("".join(part.split())) for part in shown.split("…"))
    return re.fullmatch(pattern, "".join(printed.split())) is not None
