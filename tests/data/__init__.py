"""Files as released code left them; `make_schema_1.py` says how they were made."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

SCHEMA_1 = Path(__file__).parent / "schema_1"
MODIFIED = 1_700_000_000  # seconds: the time of change of every input of a job


def copy_of(name: str, to: Path) -> Path:
    """A copy of a folder of `SCHEMA_1`, whose files have the time that jobs remember of them."""
    shutil.copytree(SCHEMA_1 / name, to)
    for path in to.rglob("*"):
        os.utime(path, (MODIFIED, MODIFIED))
    return to


def read_json(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((SCHEMA_1 / name).read_text("utf-8"))
    return content
