"""Parsers of request bodies, called through the ASGI application in this process."""

import asyncio
import gzip
import io
import json
import struct
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import zstandard

from hsoftmax.service import Settings, create_app
from hsoftmax.service.context import context_of
from hsoftmax.service.logging import json_log
from tests.service.conftest import HIDDEN, export

from .line_rows import ndjson_bombs, ndjson_rows
from .npy_bombs import npy_bombs
from .parsers import Parser, Wrong

_MODEL = "/v1/models/words"
_LINES, _ARROW = "application/x-ndjson", "application/vnd.apache.arrow.stream"
_MAX_BODY_BYTES = 16 << 20
_ROW = [0.1] * HIDDEN


class Application:
    """The service over a small repository, without a socket."""

    def __init__(self, work: Path) -> None:
        settings = Settings(
            repository=export(work / "repository"), threads=1, state=work / "state",
            max_body_bytes=_MAX_BODY_BYTES, watch=False,
        )  # fmt: skip
        self._app = create_app(settings, log=json_log("error", io.BytesIO()))
        self._loop = asyncio.new_event_loop()
        context_of(self._app).load()

    def post(self, path: str, body: bytes, query: bytes = b"", **headers: str) -> None:
        """Send a request; raise Wrong for a 500 and for an answer without an end."""
        messages = self._loop.run_until_complete(self._post(path, body, query, headers))
        start, answer = messages[0], b"".join(m.get("body", b"") for m in messages[1:])
        if start["status"] == 500:
            raise Wrong(f"{path}: 500 {answer[:200]!r}")
        if messages[-1].get("more_body") and b'"internal"' in answer[-300:]:
            raise Wrong(f"{path}: cut off {answer[-200:]!r}")
        if messages[-1].get("more_body") and b'"code"' not in answer[-300:]:
            raise Wrong(f"{path}: cut off {answer[-200:]!r}")

    async def _post(
        self, path: str, body: bytes, query: bytes, headers: dict[str, str]
    ) -> list[dict[str, Any]]:
        names = {name.replace("_", "-").encode(): v.encode() for name, v in headers.items()}
        scope = {
            "type": "http", "http_version": "1.1", "method": "POST", "scheme": "http", "path": path,
            "raw_path": path.encode(), "query_string": query, "root_path": "",
            "headers": [*names.items(), (b"host", b"test")], "server": ("test", 80),
            "client": ("test", 1), "state": {}, "extensions": {},
        }  # fmt: skip
        requests = iter([{"type": "http.request", "body": body, "more_body": False}])
        messages: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            message = next(requests, None)
            if message is None:
                await asyncio.Event().wait()
            assert message is not None
            return message

        async def send(message: dict[str, Any]) -> None:
            messages.append(message)

        await self._app(scope, receive, send)
        return messages


def http_parser(name: str, work: Path) -> Parser:
    """Build the parser of one kind of body."""
    build: dict[str, Callable[[Application], Parser]] = {
        "json": _json, "npy": _npy, "arrow": _arrow, "ndjson-stream": _ndjson_stream,
        "arrow-stream": _arrow_stream, "gzip": _gzip, "zstd": _zstd, "multipart": _multipart,
        "url": _url, "tensors": _tensors,
    }  # fmt: skip
    return build[name](_application(work))


@cache
def _application_once() -> list[Application]:
    return []


def _application(work: Path) -> Application:
    """Return the application of this process, whose files are in the first parser's folder."""
    made = _application_once()
    if not made:
        made.append(Application(work))
    return made[0]


def _json(app: Application) -> Parser:
    queries: list[dict[str, Any]] = [
        {"inputs": [_ROW], "targets": [3]},
        {"inputs": [_ROW, _ROW], "targets": [[3, "word1"], ["étoile"]], "log": True},
        {"inputs": [_ROW], "k": 3, "max_blocks": 0, "version": "1"},
        {"inputs": [_ROW], "num_samples": 2, "seed": 7},
        {"input_file_id": "file-5f2c", "endpoint": f"{_MODEL}/score", "completion_window": "24h",
         "metadata": {"a": "b"}},
    ]  # fmt: skip
    paths = [
        f"{_MODEL}/{name}" for name in ("probabilities", "top_k", "clusters", "children", "sample")
    ]

    def run(content: bytes) -> None:
        for path in (*paths, "/v1/batches"):
            app.post(path, content, content_type="application/json")

    def bombs() -> list[bytes]:
        return [
            b"[" * 1_000_000,
            b'{"inputs":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
            b'{"inputs":[' + b"[]," * 1_000_000 + b"[]]}",
            b'{"a":' * 100_000,
            b'{"inputs":[[' + b"9" * 100_000 + b"]]}",
            b'{"inputs":[[1e' + b"9" * 100_000 + b"]]}",
            b'{"version":"caf\xe9","inputs":[[0]]}',
            b'{"\xe9":1}',
            b'{"targets":["caf\xe9"]}',
            b'"' + b"\\u0000" * 1_000_000 + b'"',
            b'{"inputs":[[NaN]],"targets":"' + b"[" * 500_000 + b'"}',
        ]

    return Parser([json.dumps(q, ensure_ascii=False).encode() for q in queries], bombs, run)


def _npy_bytes(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


_FRAME = struct.Struct("<I")  # the length of the JSON, in front of a body, for its header


def framed(request: dict[str, Any], raw: bytes) -> bytes:
    """A body of the Open Inference Protocol behind the value of its length header."""
    head = json.dumps(request).encode()
    return _FRAME.pack(len(head)) + head + raw


def _tensors(app: Application) -> Parser:
    def given(name: str, datatype: str, shape: list[int], raw: bytes) -> dict[str, Any]:
        size = {"binary_data_size": len(raw)}
        return {"name": name, "datatype": datatype, "shape": shape, "parameters": size}

    rows = np.array([_ROW] * 2, "<f4").tobytes()
    labels = b"".join(_FRAME.pack(5) + b"word%d" % i for i in (1, 2))
    hidden = given("hidden", "FP32", [2, HIDDEN], rows)
    seeds = [
        framed({"inputs": [hidden], "parameters": {"k": 2, "binary_data_output": True}}, rows),
        framed({"inputs": [hidden, given("target", "BYTES", [2], labels)], "id": "a"},
               rows + labels),
        framed({"inputs": [given("hidden", "BF16", [2, HIDDEN], rows[: len(rows) // 2])],
                "outputs": [{"name": "probs", "parameters": {"classification": 2}}]},
               rows[: len(rows) // 2]),
        framed({"inputs": [{"name": "hidden", "datatype": "FP64", "shape": [1, HIDDEN],
                            "data": [_ROW]}], "outputs": [{"name": "sample"}]}, b""),
        _FRAME.pack(0) + rows,
    ]  # fmt: skip

    def run(content: bytes) -> None:
        length = str(int.from_bytes(content[:4], "little"))
        headers = {"inference_header_content_length": length}
        app.post("/v2/models/words/infer", content[4:], **headers)
        app.post("/v2/models/words/infer", content[4:])

    def bombs() -> list[bytes]:
        many = given("target", "BYTES", [2**31 - 1], b"\0" * (8 << 20))
        return [
            _FRAME.pack(2**32 - 1),
            framed({"inputs": [many]}, b"\0" * (8 << 20)),
            framed({"inputs": [given("hidden", "FP32", [2**62, 2**62], b"")]}, b""),
            framed({"inputs": [given("hidden", "FP32", [0, 2**62], b"")]}, b""),
            framed({"inputs": [given(f"x{i}", "FP32", [0], b"") for i in range(50_000)]}, b""),
            framed({"inputs": [hidden], "outputs": [{"name": "probs"}] * 100_000}, rows),
            framed({"inputs": [hidden], "parameters": {"k": 10**400}}, rows),
            framed({"inputs": [{**hidden, "shape": [1] * 100_000}]}, rows),
            b"\xff\xff\0\0" + b'{"inputs":' + b"[" * 1_000_000,
        ]

    return Parser(seeds, bombs, run)


def _npy(app: Application) -> Parser:
    matrix = np.full((2, HIDDEN), 0.5)
    seeds = [_npy_bytes(matrix.astype(dtype)) for dtype in ("<f4", ">f8", "<i4", "<f2")]
    seeds.append(_npy_bytes(np.asfortranarray(matrix)))
    return Parser(seeds, npy_bombs, lambda content: app.post(
        f"{_MODEL}/probabilities", content, content_type="application/x-npy"
    ))  # fmt: skip


def arrow_stream(columns: dict[str, Any], **options: Any) -> bytes:
    """Return a table as an Arrow stream."""
    sink, table = io.BytesIO(), pa.table(columns)
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as out:
        out.write_table(table, max_chunksize=2)
    return sink.getvalue()


def _lists(rows: int, kind: pa.DataType) -> pa.Array:
    return pa.array([_ROW] * rows, kind)


def _arrow_bombs(name: str) -> list[bytes]:
    no_numbers = pa.FixedSizeListArray.from_arrays(pa.array([], pa.float32()), 1)
    text = pa.array([b"caf\xe9", b"a"], pa.binary()).view(pa.string())
    return [
        arrow_stream({name: no_numbers}),
        arrow_stream({name: _lists(2, pa.list_(pa.float32())), "target": text}),
        arrow_stream({name: _lists(2, pa.list_(pa.float32())), "targets": text}),
        arrow_stream({name: pa.nulls(1_000_000)}),
        arrow_stream({name: _lists(4, pa.list_(pa.float32()))}, compression="zstd"),
        b"\xff\xff\xff\xff\xff\xff\xff\x7f",
        b"\xff\xff\xff\xff\x10\0\0\0" + b"\xff" * 16,
        b"ARROW1\0\0",
    ]


def _arrow(app: Application) -> Parser:
    lists = _lists(3, pa.list_(pa.float32()))
    seeds = [
        arrow_stream({"inputs": lists}),
        arrow_stream({"inputs": _lists(3, pa.list_(pa.float64(), HIDDEN)), "targets": [1, 2, 3]}),
        arrow_stream({"inputs": lists, "targets": [["word1"], [], ["étoile", "word2"]]}),
        arrow_stream({"inputs": lists, "targets": pa.array(["a", "b", "a"]).dictionary_encode()}),
    ]
    return Parser(seeds, lambda: _arrow_bombs("inputs"), lambda content: app.post(
        f"{_MODEL}/probabilities", content, content_type=_ARROW
    ))  # fmt: skip


def _ndjson_stream(app: Application) -> Parser:
    return Parser(ndjson_rows(), ndjson_bombs, lambda content: app.post(
        f"{_MODEL}/score", content, b"task=target_log_prob", content_type=_LINES
    ))  # fmt: skip


def _arrow_stream(app: Application) -> Parser:
    lists = _lists(3, pa.list_(pa.float32()))
    labels = pa.array(["word1", "word2", "word1"])
    seeds = [
        arrow_stream({"id": [1, 2, 3], "input": lists, "target": [1, 2, 3]}),
        arrow_stream({"id": ["a", "b", "c"], "input": lists, "target": labels}),
        arrow_stream({"input": lists, "target": labels.dictionary_encode()}),
        arrow_stream({"input": lists, "targets": [[1], [], [2, 3]]}),
    ]
    return Parser(seeds, lambda: _arrow_bombs("input"), lambda content: app.post(
        f"{_MODEL}/score", content, b"task=target_log_prob", content_type=_ARROW, accept=_LINES
    ))  # fmt: skip


def _compressed(app: Application, encoding: str) -> Callable[[bytes], None]:
    def run(content: bytes) -> None:
        app.post(f"{_MODEL}/probabilities", content, content_encoding=encoding)
        app.post(
            f"{_MODEL}/score", content, b"task=target_log_prob",
            content_type=_LINES, content_encoding=encoding,
        )  # fmt: skip

    return run


def _gzip(app: Application) -> Parser:
    query = json.dumps({"inputs": [_ROW] * 3}).encode()
    seeds = [gzip.compress(query), gzip.compress(ndjson_rows()[0]) * 2]

    def bombs() -> list[bytes]:
        return [
            gzip.compress(b"\0" * (200 << 20)),
            gzip.compress(b"[" * (64 << 20)),
            gzip.compress(b"") * 50_000,
            gzip.compress(b"\n" * (64 << 10)),
            zlib.compress(query),
        ]

    return Parser(seeds, bombs, _compressed(app, "gzip"))


def _zstd(app: Application) -> Parser:
    query = json.dumps({"inputs": [_ROW] * 3}).encode()
    compress = zstandard.ZstdCompressor().compress
    stream = zstandard.ZstdCompressor(write_checksum=True).compressobj()
    large_window = zstandard.ZstdCompressor(
        compression_params=zstandard.ZstdCompressionParameters(window_log=27)
    )
    seeds = [
        compress(query),
        compress(ndjson_rows()[0]) * 2,
        stream.compress(query) + stream.flush(),
    ]

    def bombs() -> list[bytes]:
        return [
            compress(b"\0" * (200 << 20)),
            compress(b"[" * (64 << 20)),
            compress(b"") * 50_000,
            large_window.compress(b"\0" * (64 << 20)),
            b"\x50\x2a\x4d\x18\xff\xff\xff\xff",
        ]

    return Parser(seeds, bombs, _compressed(app, "zstd"))


def _multipart(app: Application) -> Parser:
    def form(*parts: bytes) -> bytes:
        return b"".join(b"--edge\r\n" + part + b"\r\n" for part in parts) + b"--edge--\r\n"

    purpose = b'content-disposition: form-data; name="purpose"\r\n\r\nbatch'
    file = (
        b'Content-Disposition: form-data; name="file"; filename="rows.ndjson"\r\n'
        b"Content-Type: application/octet-stream\r\n\r\n" + ndjson_rows()[0]
    )
    seeds = [form(purpose, file), form(file, purpose)]

    def bombs() -> list[bytes]:
        return [
            b"--edge\r\n" + b"a" * (10 << 20),
            b"--edge\r\n" + b"a: b\r\n" * 1_000_000,
            b"--edge\r\na: " + b"b" * (10 << 20),
            b"--edge\r\n\r\n" * 200_000,
            b"--edge\r\ncontent-disposition: form-data; name*=utf-8''%ff%fe; name=\"\xff\"\r\n\r\n",
            form(*[purpose] * 20_000),
            b"\r\n" * 1_000_000,
            b"--edg" * 1_000_000,
        ]

    return Parser(seeds, bombs, lambda content: app.post(
        "/v1/files", content, content_type="multipart/form-data; boundary=edge"
    ))  # fmt: skip


def _url(app: Application) -> Parser:
    body = _npy_bytes(np.full((2, HIDDEN), 0.5, np.float32))

    def run(content: bytes) -> None:
        for operation in ("probabilities", "top_k", "sample"):
            app.post(f"{_MODEL}/{operation}", body, content, content_type="application/x-npy")
        app.post(f"{_MODEL}/score", b"{}", content, content_type=_LINES)

    seeds = [b"targets=3,17&targets=5&log=true&version=1", b"k=3&max_blocks=2", 
             b"seed=7&num_samples=2", b"task=top_k&k=3&log_base=2.0"]  # fmt: skip

    def bombs() -> list[bytes]:
        return [
            b"targets=" + b"," * 8000,
            b"k=" + b"9" * 5000,
            b"%ff=%ff",
            b"targets=%ff",
            b"&" * 8000,
            b"targets=" + b"%d9%a3" * 1000,
            b"log=" + b"[" * 8000,
            b"k=1e999",
            b"task=%00",
        ]

    return Parser(seeds, bombs, run)
