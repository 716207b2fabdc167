"""Parsers of a bundle's files: the manifest, and the ONNX graphs as the service opens them."""

import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hsoftmax import bundle, exporter
from hsoftmax.commands.inspect import _manifest_lines
from hsoftmax.runtime.devices import ON_CPU
from hsoftmax.runtime.sessions import choose_device, open_sessions
from tests.service.conftest import LABELS, random_model

from .parsers import Parser


def bundle_parser(name: str, work: Path) -> Parser:
    """Build the parser of one kind of file."""
    made = exporter.export_model(
        random_model(1), exporter.parse_destination(work / "repository" / "words"), labels=LABELS
    )
    build: dict[str, Callable[[bundle.Bundle], Parser]] = {"manifest": _manifest, "onnx": _onnx}
    return build[name](made)


def _manifest(made: bundle.Bundle) -> Parser:
    seed = made.file(bundle.MANIFEST).read_bytes()
    content = json.loads(seed)

    def with_tensor(**changes: object) -> bytes:
        tensors = [{**content["tensors"][0], **changes}, *content["tensors"][1:]]
        return json.dumps({**content, "tensors": tensors}).encode()

    def bombs() -> list[bytes]:
        return [
            b"[" * 1_000_000,
            b'{"attributes":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
            with_tensor(shape=[0, 2**70]),
            with_tensor(shape=[0, 2**63 - 1, 2**63 - 1]),
            with_tensor(shape=[1] * 70),
            with_tensor(offset=2**70),
            with_tensor(shape=[-1]),
            json.dumps({**content, "schema_version": int("9" * 4000)}).encode(),
            json.dumps({**content, "num_targets": 10**18}).encode(),
            json.dumps({**content, "labels": bundle.WEIGHTS}).encode(),
            b" " * (17 << 20),
        ]

    def run(mutated: bytes) -> None:
        made.file(bundle.MANIFEST).write_bytes(_seal(mutated))
        opened = bundle.open_bundle(made.path)
        list(_manifest_lines(opened.manifest))
        bundle.load_tensors(opened)
        bundle.read_labels(opened)

    return Parser([seed], bombs, run)


def _seal(content: bytes) -> bytes:
    """Return the manifest with the digest that it should have, where it is JSON."""
    try:
        parts: Any = json.loads(content)
    except (ValueError, RecursionError):
        return content
    if not isinstance(parts, dict):
        return content
    rest = {name: part for name, part in parts.items() if name != "digest"}
    canonical = json.dumps(rest, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    return json.dumps({**rest, "digest": digest}).encode()


def _onnx(made: bundle.Bundle) -> Parser:
    choose_device("cpu", 1)
    graphs = made.manifest.tasks
    seeds = [made.file(graphs[task].file).read_bytes() for task in ("target_log_prob", "top_k")]
    path = made.file(graphs["target_log_prob"].file)
    tasks = {"target_log_prob": graphs["target_log_prob"]}
    single = dataclasses.replace(made, manifest=made.manifest.model_copy(update={"tasks": tasks}))

    def run(content: bytes) -> None:
        path.write_bytes(content)
        open_sessions(single, ON_CPU)

    return Parser(seeds, lambda: [b"", b"\x08" * 1000, b"\x3a\xff\xff\xff\xff\x07"], run)
