"""`hsoftmax score --url` of texts and of inputs by name: the bytes of the bundle itself.

Errors are included.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hsoftmax.cli import run
from hsoftmax.client import Client
from hsoftmax.exporter import (
    EncoderOptions,
    SourceOptions,
    export_file,
    export_model,
    parse_destination,
)
from tests import encoder_models
from tests.exporter.sources.fasttext_files import FastTextFile
from tests.service.conftest import HIDDEN, random_model
from tests.service.processes import Process

LABELS = {"__label__fr": 5, "__label__en": 4, "__label__de": 2}
MAX_BODY = 100_000
LINES = ["hello world", "bonjour tout le monde", "", "guten Tag", "😀 ok", "__label__en hi", "x"]
ROWS = [
    {"id": 1, "input": "hello", "target": "en"},
    {"id": 2, "input": [0.5] * 4, "target": 0},
    {"id": 3, "input": "two\nlines", "target": 1},
    {"id": 4, "text": ["tout", "le", "monde"], "target": "fr"},
    {"id": 5, "input": ["two words"], "target": 1},
    {"id": 6, "input": "guten Tag", "target": "nl"},
    {"id": 7, "input": [1.0], "target": 0},
    {"id": 8, "input": "bonjour", "target": 2},
]


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> Path:
    """The bundles `lid` and `words`, which read text, and `plain`, which does not."""
    folder = tmp_path_factory.mktemp("repository")
    (folder / "lid.bin").write_bytes(FastTextFile(labels=LABELS).content())
    for name, text in (("lid", True), ("plain", False)):
        options = SourceOptions(text=text)
        export_file(folder / "lid.bin", folder / name / "1", source="fasttext", options=options)
    export_words(folder)
    return folder


def export_words(folder: Path) -> None:
    """Exports a bundle with an encoder, which takes ids and texts."""
    encoder = encoder_models.save(encoder_models.mean(), folder / "mean.onnx")
    tokenizer = folder / "tokenizer.json"
    tokenizer.write_text(json.dumps({"kind": "words", "words": ["we", "the", "people"]}))
    options = EncoderOptions(encoder, mask="mask", tokenizer=tokenizer)
    to = parse_destination(folder / "words")
    export_model(random_model(3), to, encoder=options)


@pytest.fixture(scope="module")
def url(repository) -> Iterator[str]:
    process = Process(repository, max_body_bytes=MAX_BODY, max_rows=64)
    yield f"http://{process.address}"
    process.end()


def write(folder: Path, of: str) -> Path:
    path = folder / f"in.{of}"
    match of:
        case "txt":
            path.write_bytes("\n".join([*LINES, "b\xffd", *LINES]).encode("latin1", "ignore"))
        case "csv":
            lines = [f"{i},{line},{i % 4}" for i, line in enumerate(LINES)]
            path.write_text("\n".join(["id,text,target", *lines]))
        case "parquet":
            texts = pa.array([*LINES, None, "a\nb", *LINES]).dictionary_encode()
            pq.write_table(pa.table({"text": texts}), path)
        case "ndjson":
            path.write_text("\n".join(map(json.dumps, ROWS)))
    return path


def score_both(
    repository: Path,
    url: str,
    path: Path,
    *options: str,
    bundle: str = "lid",
    output: str = "out.ndjson",
) -> tuple[bytes, bytes]:
    """Returns the output of the bundle itself, and that through the server."""
    outputs = []
    to = path.with_name(output)
    for name, *more in ([str(repository / bundle)], [bundle, "--url", url]):
        assert run(["score", name, str(path), str(to), *options, *more]) == 0
        outputs.append(to.read_bytes())
        to.unlink()
    return outputs[0], outputs[1]


@pytest.mark.parametrize(
    ("of", "task"),
    [
        ("txt", "top_k"), ("csv", "target_log_prob"), ("csv", "log_probs"), ("parquet", "top_k"),
        ("ndjson", "top_k"), ("ndjson", "target_log_prob"), ("ndjson", "sample"),
    ],
)  # fmt: skip
def test_texts_have_the_bytes_of_the_bundle_itself(repository, url, tmp_path, of, task):
    path = write(tmp_path, of)
    local, remote = score_both(repository, url, path, "--task", task, "--batch", "8")
    assert remote == local
    records = [json.loads(line) for line in local.splitlines()]
    failed = {record["id"] for record in records if "error" in record}
    if of == "ndjson":
        assert failed == ({3, 6, 7} if task == "target_log_prob" else {3, 7})


def test_all_wrong_texts_of_a_batch_are_found_at_once(repository, url, tmp_path, monkeypatch):
    path, sent = tmp_path / "in.ndjson", []
    texts = [*(f"{i}\n{i}" for i in range(50)), "right"]
    path.write_text("\n".join(json.dumps({"input": text}) for text in texts))
    send = Client.send
    monkeypatch.setattr(Client, "send", lambda self, call: sent.append(call) or send(self, call))
    local, remote = score_both(repository, url, path, "--task", "top_k")
    assert remote == local
    assert local.count(b"expected one line") == 50
    paths = [call.request.path for call in sent]
    assert [path.rsplit("/", 1)[1].partition("?")[0] for path in paths[-2:]] == [
        "score",
        "top_k",
    ]


@pytest.mark.parametrize("task", ["top_k", "sample"])
def test_a_request_too_large_is_sent_in_halves(repository, url, tmp_path, task):
    path = tmp_path / "in.txt"
    path.write_text("".join(f"{word} " * 300 + "\n" for word in range(200)))  # more rows and bytes
    options = ["--task", task, "--batch", "200", "--num-samples", "5"]
    local, remote = score_both(repository, url, path, *options)
    assert remote == local
    assert local.count(b"\n") == 200


def test_one_text_larger_than_a_body_of_the_server_is_scored(repository, url, tmp_path):
    path = tmp_path / "in.txt"
    path.write_text("\n".join(["hello", "x" * (MAX_BODY + 1), "world"]))
    local, remote = score_both(repository, url, path, "--task", "top_k")
    assert remote == local
    assert b"error" not in local


TASKS = ["target_log_prob", "log_probs", "sample", "hidden"]
MANY = [{"input": {"ids": [i % 50, (3 * i) % 50, 7]}, "target": i % 3} for i in range(40)]
NAMED_ROWS = [
    {"id": "a", "input": {"ids": [3, 1, 4]}, "target": 1},
    {"id": "b", "input": {"ids": [50]}, "target": 1},
    {"id": "c", "input": {"other": [1]}, "target": 1},
    {"id": "d", "input": {"ids": []}, "target": 1},
    {"id": "e", "input": {"ids": [10**30]}, "target": 1},
    {"id": "f", "input": "we the people", "target": 0},
    {"id": "g", "input": "we 😀", "target": 0},
    {"id": "h", "input": ["we", "the"], "target": 2},
    {"id": "i", "input": [0.25] * HIDDEN, "target": 2},
    {"id": "j", "input": [0.25], "target": 2},
    {"id": "k", "input": {"ids": [[1], [2]]}, "target": 1},
    {"id": "l", "input": {}, "target": 1},
    {"id": "m", "target": 1},
    {"id": "n", "input": {"ids": [1] * 30}, "target": 10**6},
    {"id": "o", "input": {"ids": [1, 2.0, -1]}, "target": 0},
    *MANY,
]


@pytest.mark.parametrize("task", TASKS)
def test_inputs_by_name_have_the_bytes_of_the_bundle_itself(repository, url, tmp_path, task):
    path = tmp_path / "in.ndjson"
    path.write_text("\n".join(map(json.dumps, NAMED_ROWS)))
    options = ["--task", task, "--batch", "32"]
    local, remote = score_both(repository, url, path, *options, bundle="words")
    assert remote == local
    failed = {r["id"] for r in map(json.loads, local.splitlines()) if "error" in r}
    wrong_target = {"n"} if task == "target_log_prob" else set()
    assert failed == {*"bcdegjklmo", *wrong_target}


@pytest.mark.parametrize(("of", "to"), [("csv", "parquet"), ("txt", "npy")])
def test_hidden_states_of_texts_are_written_in_every_format(repository, url, tmp_path, of, to):
    path = write(tmp_path, of)
    local, remote = score_both(repository, url, path, "--task", "hidden", output=f"out.{to}")
    assert remote == local


def test_a_bundle_without_text_says_so_in_one_line(url, tmp_path, capsys):
    expected = {
        "txt": (2, "expected hidden states, as plain takes no text here, got text"),
        "csv": (2, "columns: expected input, or h0 to h3, got id, text, target"),
        "ndjson": (1, "input: expected 4 numbers, got text: plain takes no text here, so give"),
    }
    for of, (code, sentence) in expected.items():
        path = write(tmp_path, of)
        if of == "ndjson":
            path.write_text('{"input": "hello"}')
        arguments = ["score", "plain", str(path), str(tmp_path / "out.ndjson"), "--task", "top_k"]
        assert run([*arguments, "--url", url]) == code
        error = capsys.readouterr().err
        assert sentence in error
        assert error.count("\n") == 1
