"""The command line: exit codes, one-line errors, and the output of each command."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from hsoftmax import bundle
from hsoftmax.cli import run
from hsoftmax.runtime.native import load_library
from hsoftmax.runtime.native.task_kernels import TargetLogProbKernel
from tests import encoder_models


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("weights") / "weights.npz"
    np.savez(
        path,
        W1=rng.normal(size=(6, 5)),
        b1=rng.normal(size=5),
        W2=rng.normal(size=(5, 6, 4)),
        b2=rng.normal(size=(5, 4)),
    )
    return path


@pytest.fixture(scope="module")
def exported(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    repository = tmp_path_factory.mktemp("exported") / "repository"
    to = repository / "words"
    arguments = ["export", str(weights), "--from", "theano", "--to", str(to), "--num-targets", "18"]
    assert run(arguments) == 0
    return repository


@pytest.fixture
def made(exported: Path, tmp_path: Path) -> Path:
    """Return a copy of the exported bundle, which a test may change."""
    return shutil.copytree(exported, tmp_path / "repository") / "words" / "1"


def one_error_line(capsys: pytest.CaptureFixture[str]) -> str:
    error = capsys.readouterr().err
    assert error.startswith("hsoftmax: ")
    assert error.count("\n") == 1
    return error


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")


def row(printed: str, name: str) -> str:
    """Return the text that `inspect` prints beside a name."""
    (found,) = re.findall(rf"^{name} +(.*?) *$", printed, flags=re.MULTILINE)
    return found


def test_export_prints_the_path_of_the_bundle(weights, tmp_path, capsys):
    assert run(["export", str(weights), "--from", "theano", "--to", str(tmp_path / "words")]) == 0
    printed = capsys.readouterr().out
    assert str(tmp_path / "words" / "1") in printed
    assert "20 targets in 5 clusters" in printed


def test_inspect_prints_the_facts_of_the_bundle(made, capsys):
    capsys.readouterr()
    assert run(["inspect", str(made)]) == 0
    printed = capsys.readouterr().out
    manifest = bundle.open_bundle(made).manifest
    for word in ("HierarchicalSoftmax", "18", "mask", "weights.npz", "task top_k"):
        assert word in printed
    assert manifest.digest in printed.replace("\n", "").replace(" ", "")


def test_inspect_says_what_computes_each_task_on_this_machine(made, capsys):
    capsys.readouterr()
    assert run(["inspect", str(made)]) == 0
    printed = capsys.readouterr().out
    tasks, instruction_set = row(printed, "native kernels").rstrip(")").split(" (")
    native = {"sample", "target_log_prob", "top_k"}
    assert (set(tasks.split(", ")), instruction_set) == (native, load_library().instruction_set)
    others = set(bundle.open_bundle(made).manifest.tasks) - native
    assert set(row(printed, "ONNX Runtime").split(", ")) == others


def test_inspect_json_is_the_manifest(made, capsys):
    capsys.readouterr()
    assert run(["inspect", str(made), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads((made / "bundle.json").read_text())


def test_a_name_without_version_means_the_highest_version(made, weights, capsys):
    to = str(made.parent / "2")
    assert run(["export", str(weights), "--from", "theano", "--to", to]) == 0
    capsys.readouterr()
    assert run(["inspect", str(made.parent), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["num_targets"] == 20


def test_verify_passes_a_good_bundle(made, capsys):
    capsys.readouterr()
    assert run(["verify", str(made)]) == 0
    assert "ok   top_k, extreme logits" in capsys.readouterr().out


def test_verify_checks_the_native_kernels_too(made, capsys):
    capsys.readouterr()
    assert run(["verify", str(made)]) == 0
    printed = capsys.readouterr().out
    name = load_library().instruction_set
    for task in ("target_log_prob", "top_k"):
        for case in ("ordinary", "large", "extreme"):
            assert f"ok   {task}, {case} logits" in printed
            assert f"ok   native {name} {task}, {case} logits" in printed
    assert f"native {name} log_probs" not in printed


def test_verify_fails_on_a_wrong_native_kernel(made, monkeypatch, capsys):
    original = TargetLogProbKernel.__call__

    def wrong(self, feeds, stop=None):
        return [original(self, feeds, stop)[0] + np.float32(0.001)]

    monkeypatch.setattr(TargetLogProbKernel, "__call__", wrong)
    capsys.readouterr()
    assert run(["verify", str(made)]) == 1
    said = capsys.readouterr()
    assert "native kernel: target_log_prob, ordinary logits: expected within 1.3e-05" in said.err
    assert said.err.count("\n") == 1
    assert f"FAIL native {load_library().instruction_set} target_log_prob, ordinary" in said.out
    assert "ok   target_log_prob, ordinary logits" in said.out


def test_inspect_and_verify_say_that_a_machine_has_no_native_kernels(made, without_kernels, capsys):
    capsys.readouterr()
    assert run(["inspect", str(made)]) == 0
    printed = capsys.readouterr().out
    assert row(printed, "native kernels") == f"none: {without_kernels}"
    tasks = set(bundle.open_bundle(made).manifest.tasks)
    assert set(row(printed, "ONNX Runtime").split(", ")) == tasks
    assert run(["verify", str(made)]) == 0
    assert f"native kernels: not checked: {without_kernels}" in capsys.readouterr().out


def test_verify_fails_on_one_altered_byte(made, capsys):
    capsys.readouterr()
    path = made / "weights.bin"
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    assert run(["verify", str(made)]) == 1
    assert "weights.bin: expected SHA-256" in one_error_line(capsys)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["export", "{weights}", "--from", "theano", "--to", "{made}"], 2, "which exists"),
        (["export", "{weights}", "--from", "torch7", "--to", "x/y"], 2, "'torch7' is not"),
        (["export", "/nowhere", "--from", "theano", "--to", "x/y"], 2, "'/nowhere' does not"),
        (["export", "{weights}", "--from", "theano", "--to", "x/y", "--num-targets", "99"], 1,
         "num_targets: expected 1 to 20, got 99"),
        (["export", "{weights}", "--from", "theano"], 2, "Missing option '--to'"),
        (["export", "{weights}", "--to", "words"], 2,
         "expected REPOSITORY/NAME[/VERSION], got words: name the folder of the repository too, "
         "such as repository/words or ./words"),
        (["export", "{weights}", "--to", "words/2/"], 2, "such as repository/words/2"),
        (["export", "{weights}", "--from", "huffman", "--to", "x/y"], 1, "say --from theano"),
        (["export", "{weights}", "--to", "s4://bucket/words"], 2, "did you mean s3://?"),
        (["export", "{weights}", "--to", "s3://bucket"], 2, "expected s3://BUCKET/PATH/NAME"),
        (["export", "{weights}", "--to", "https://host/words"], 2, "got https://"),
        (["inspect", "/nowhere"], 1, "expected a bundle, got no bundle.json: give REPOSITORY/NAME"),
        (["verify", "/nowhere"], 1, "expected a bundle, got no bundle.json: give REPOSITORY/NAME"),
        (["verify", "{made}/../.."], 1, "give one of the bundles in it, such as "),
        (["serve", "--port", "none", "/nowhere"], 2, "port: "),
        (["serve", "--device", "tpu", "/nowhere"], 2, "device: "),
        (["surprise"], 2, "No such command 'surprise'"),
    ],
)  # fmt: skip
def test_an_error_is_one_line(made, weights, capsys, arguments, code, message):
    capsys.readouterr()
    filled = [a.format(weights=weights, made=made) for a in arguments]
    assert run(filled) == code
    assert message in one_error_line(capsys)


@pytest.mark.parametrize("to", ["./words", "./words/1", "{folder}/words"])
def test_the_repository_of_a_bundle_may_be_the_current_folder(weights, tmp_path, monkeypatch, to):
    monkeypatch.chdir(tmp_path)
    to = to.format(folder=tmp_path)
    assert run(["export", str(weights), "--from", "theano", "--to", to]) == 0
    assert (tmp_path / "words" / "1" / "bundle.json").is_file()


def test_a_bundle_is_exported_to_a_store_once(weights, tmp_path, capsys):
    url = f"file://{tmp_path}/models/words"
    assert run(["export", str(weights), "--from", "theano", "--to", f"{url}/3"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == f"{url}/3"
    assert run(["verify", str(tmp_path / "models" / "words" / "3")]) == 0
    for to in (url, f"{url}/3"):
        assert run(["export", str(weights), "--from", "theano", "--to", to]) == 2
        assert f"such as {url}/4, got one that exists" in one_error_line(capsys)


def test_every_command_has_help(capsys):
    for command in ("export", "inspect", "verify", "serve", "demo"):
        assert run([command, "--help"]) == 0
        assert "Usage: hsoftmax " + command in capsys.readouterr().out


def test_every_setting_of_the_service_is_a_flag(capsys):
    from hsoftmax import service

    assert run(["serve", "--help"]) == 0
    printed = capsys.readouterr().out
    for name in set(service.Settings.model_fields) - {"repository"}:
        assert f"--{name.replace('_', '-')}" in printed


def test_export_puts_an_encoder_beside_the_head(weights, tmp_path, capsys):
    model = encoder_models.save(encoder_models.gru(outputs=["states"]), tmp_path / "gru.onnx")
    arrays = dict(np.load(weights))
    hidden = encoder_models.HIDDEN
    np.savez(weights, **arrays | {"W1": np.ones((hidden, 5)), "W2": np.ones((5, hidden, 4))})
    to = tmp_path / "repository" / "words"
    arguments = ["export", str(weights), "--to", str(to), "--encoder", str(model)]
    assert run(arguments) == 1
    assert "expected --encoder-position first, last or each" in one_error_line(capsys)
    assert run([*arguments, "--encoder-position", "last"]) == 0
    assert '{"inputs": {"ids": [...]}}' in capsys.readouterr().out
    assert run(["inspect", str(to)]) == 0
    assert "ids (batch, length), position last" in capsys.readouterr().out
    files = bundle.open_bundle(to / "1").manifest.source.files
    assert files.keys() == {"weights.npz", "gru.onnx"}


def test_facts_about_an_encoder_need_one(weights, tmp_path, capsys):
    to = str(tmp_path / "words")
    assert run(["export", str(weights), "--to", to, "--encoder-mask", "mask"]) == 2
    assert "expected --encoder FILE beside --encoder-… and --tokenizer, got none" in one_error_line(
        capsys
    )
