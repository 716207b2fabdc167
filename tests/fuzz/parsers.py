"""The parsers that are tried: each has small valid inputs, bombs, and a function that reads one.

`run` returns or raises a UserError for an input that is handled. It raises Wrong for an answer that
blames the service, and any other error is a traceback that a user would see.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


class Wrong(Exception):
    """The service answered 500, or cut an answer off."""


@dataclass(frozen=True)
class Parser:
    """One parser.

    Attributes:
        seeds: valid inputs, which are mutated
        bombs: inputs that ask for much time, memory or stack; they are tried as they are
    """

    seeds: Sequence[bytes]
    bombs: Callable[[], Sequence[bytes]]
    run: Callable[[bytes], object]


def _http(name: str) -> Callable[[Path], Parser]:
    def build(work: Path) -> Parser:
        from .http_parsers import http_parser

        return http_parser(name, work)

    return build


def _weights(name: str) -> Callable[[Path], Parser]:
    def build(work: Path) -> Parser:
        from .weights_parsers import weights_parser

        return weights_parser(name, work)

    return build


def _rows(name: str) -> Callable[[Path], Parser]:
    def build(work: Path) -> Parser:
        from .rows_parsers import rows_parser

        return rows_parser(name, work)

    return build


def _bundle(name: str) -> Callable[[Path], Parser]:
    def build(work: Path) -> Parser:
        from .bundle_parsers import bundle_parser

        return bundle_parser(name, work)

    return build


# Each builds its parser in the child process, in a folder of its own.
PARSERS: Mapping[str, Callable[[Path], Parser]] = {
    **{name: _http(name) for name in (
        "json", "npy", "arrow", "ndjson-stream", "arrow-stream", "gzip", "zstd", "multipart", "url",
        "tensors",
    )},
    **{name: _rows(name) for name in (
        "ndjson-file", "csv-file", "npy-file", "arrow-file", "parquet-file",
    )},
    **{name: _weights(name) for name in (
        "npz", "safetensors", "pytorch", "pickle", "fasttext", "hdf5", "config", "shards",
    )},
    **{name: _bundle(name) for name in ("manifest", "onnx")},
}  # fmt: skip
