"""Rows as lines of JSON: valid ones, and bombs."""

import json

from tests.service.conftest import HIDDEN

_ROW = [0.1] * HIDDEN


def ndjson_rows() -> list[bytes]:
    """Return valid files of JSON lines."""
    row = json.dumps(_ROW)
    return [
        f'{{"id":"a","input":{row},"target":3}}\n{{"id":7,"input":{row},"target":"étoile"}}\n'.encode(),
        f'{{"id":"a","input":{row},"targets":[3,"word1"],"sequence":"s"}}\n'.encode() * 3,
        f'{{"custom_id":"a","body":{{"input":{row},"target":1}}}}\n'.encode() * 2,
    ]


def ndjson_bombs() -> list[bytes]:
    """Return lines that ask for much memory or stack, or have text that is not UTF-8."""
    return [
        b'{"id":"caf\xe9","input":[1],"target":0}\n{"id":"a","note":"\xe9","input":[1]}\n',
        b"[" * 1_000_000 + b"\n",
        b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}\n",
        b'{"input":[' + b"[]," * 1_000_000 + b"[]]}\n",
        b'{"input":[' + b"NaN," * 1_000_000 + b"1]}\n",
        b'{"id":' + b"9" * 100_000 + b',"input":[1]}\n',
        b'{"input":[1e' + b"9" * 100_000 + b"]}\n",
        b"\n" * 64_000,
        b"x" * (17 << 20),
        b'{"id":"\\ud800","input":[1]}\n',
    ]
