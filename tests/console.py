"""Parses the console blocks of a page.

A line that starts with `$ ` is a command, which may continue after a `\\`. The lines after it are
its output.
"""

import re


def console_commands(page: str) -> list[tuple[str, str]]:
    """Return the (command, output) pairs of all console blocks in order."""
    found = []
    for block in re.findall(r"```console\n(.*?)```", page, flags=re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command = re.match(r"(?:.*\\\n)*.*\n", part).group()
            found.append((command.replace("\\\n", ""), part[len(command) :]))
    return found
