"""`hsoftmax score` on a bundle with an encoder: rows of inputs by name, and texts."""

import json
from pathlib import Path

import numpy as np
import pytest

from hsoftmax import exporter, load, models
from hsoftmax.cli import run
from hsoftmax.exporter import EncoderOptions
from hsoftmax.models import UserError
from tests import encoder_models
from tests.encoder_models import mean_of
from tests.runtime.tokenizer_files import write_json
from tests.service.conftest import random_model

MODEL = random_model(3)


def export(folder: Path, tokenizer: Path | None = None) -> Path:
    path = encoder_models.save(encoder_models.mean(), folder / "mean.onnx")
    exported = exporter.export_model(
        MODEL,
        exporter.parse_destination(folder / "repository" / "words"),
        encoder=EncoderOptions(path, mask="mask", tokenizer=tokenizer),
    )
    return exported.path


def wanted(ids: list[int]) -> np.ndarray:
    hidden = mean_of(ids).astype(np.float32)[None]
    return models.reference(MODEL).log_probs(MODEL, hidden)[0]


def records(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_rows_of_ids_are_scored(tmp_path):
    rows = [[3, 1, 4], [1], [49] * 30]
    source, output = tmp_path / "rows.ndjson", tmp_path / "out.ndjson"
    lines = [json.dumps({"input": {"ids": ids}, "target": i}) for i, ids in enumerate(rows)]
    lines.append(json.dumps({"input": {"ids": [50]}, "target": 1}))
    source.write_text("\n".join(lines))
    arguments = ["--task", "target_log_prob"]
    assert run(["score", str(export(tmp_path)), str(source), str(output), *arguments]) == 0
    *scored, failed = records(output)
    for i, (record, ids) in enumerate(zip(scored, rows, strict=True)):
        assert record["log_prob"] == pytest.approx(wanted(ids)[i], abs=1e-5)
    assert failed["error"] == "input.ids: expected ids from 0 to 49, got 50"


def test_lines_of_text_are_scored(tmp_path):
    pytest.importorskip("tokenizers", reason="needs the extra tokenizers")
    bundle = export(tmp_path, write_json(tmp_path / "words.json"))
    source, output = tmp_path / "lines.txt", tmp_path / "out.ndjson"
    source.write_text("we the people\nof\n\n")
    assert run(["score", str(bundle), str(source), str(output), "--task", "top_k", "--k", "3"]) == 0
    first, second, empty = records(output)
    for record, ids in ((first, [1, 2, 3]), (second, [4])):
        assert record["targets"] == np.argsort(-wanted(ids), kind="stable")[:3].tolist()
    assert empty["error"] == "input: expected a text with a token, got none"


def test_a_model_in_this_process_takes_inputs_by_name(tmp_path):
    model = load(export(tmp_path))
    ids = [[3, 1, 4], [1]]
    expected = np.stack([wanted(row) for row in ids])
    got = model.distribution({"ids": ids}, log=True)
    np.testing.assert_allclose(got, expected, atol=1e-5)
    [record] = model.score([{"input": {"ids": ids[0]}, "target": 2}])
    assert record["log_prob"] == pytest.approx(expected[0, 2], abs=1e-5)
    with pytest.raises(UserError, match=r"inputs\.ids row 0: expected ids from 0 to 49, got 50"):
        model.top_k({"ids": [[50]]})


def test_a_model_in_this_process_takes_text(tmp_path):
    pytest.importorskip("tokenizers", reason="needs the extra tokenizers")
    model = load(export(tmp_path, write_json(tmp_path / "words.json")))
    expected = np.stack([wanted([1, 2]), wanted([4])])
    np.testing.assert_allclose(model.distribution(["we the", "of"], log=True), expected, atol=1e-5)


def test_verify_checks_the_encoder(tmp_path, capsys):
    bundle = export(tmp_path)
    assert run(["verify", str(bundle)]) == 0
    assert "ok   encoder" in capsys.readouterr().out
