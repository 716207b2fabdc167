"""Every command that opens a bundle compares its hashes, unless it is told not to."""

import shutil
from contextlib import closing
from pathlib import Path

import pytest

from hsoftmax import bundle
from hsoftmax.cli import run
from hsoftmax.scoring import BundleInfo, Columns, ShardStart, Task, shard_ranges
from tests.scoring.conftest import make_rows, write

COMMANDS = {
    "inspect": [],
    "bench": ["--batch", "1", "--seconds", "0", "--device", "cpu"],
    "score": ["{input}", "{output}", "--task", "top_k"],
}


@pytest.fixture
def damaged(made, tmp_path) -> Path:
    """A copy of the bundle with one bit of its weights flipped."""
    copy = shutil.copytree(made, tmp_path / "copy")
    path = copy / "1" / bundle.WEIGHTS
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    return copy


@pytest.fixture
def call(damaged, tmp_path):
    """Returns a function that runs a command with the damaged bundle."""

    def call(command: str, *options: str) -> int:
        input, output = write(tmp_path / "in.ndjson", make_rows(3)), tmp_path / "out.ndjson"
        arguments = [one.format(input=input, output=output) for one in COMMANDS.get(command, [])]
        return run([command, str(damaged), *arguments, *options])

    return call


@pytest.mark.parametrize("command", ["inspect", "score", "verify"])
def test_one_flipped_bit_is_refused_with_one_line(call, tmp_path, capsys, command):
    assert call(command) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "weights.bin: expected SHA-256 " in said
    assert not (tmp_path / "out.ndjson").exists()


def test_bench_refuses_one_flipped_bit(call, capsys):
    assert call("bench") == 1
    assert "weights.bin: expected SHA-256 " in capsys.readouterr().err


@pytest.mark.parametrize("command", ["inspect", "score"])
def test_hashes_may_be_left_unchecked(call, command):
    assert call(command, "--no-check-hashes") == 0


@pytest.mark.parametrize("command", ["inspect", "score"])
def test_the_environment_says_it_as_for_the_service(call, monkeypatch, command):
    monkeypatch.setenv("HSOFTMAX_CHECK_HASHES", "false")
    assert call(command) == 0
    monkeypatch.setenv("HSOFTMAX_CHECK_HASHES", "true")
    assert call(command) == 1


@pytest.mark.ray
@pytest.mark.filterwarnings("ignore")  # Ray's own are not errors
@pytest.mark.parametrize("check_hashes", [True, False])
def test_a_node_refuses_a_bundle_that_it_sees_damaged(damaged, tmp_path, check_hashes):
    from hsoftmax.runners.ray import RayJob
    from hsoftmax.runners.ray.actor import ShardActor
    from hsoftmax.runners.ray.messages import message_table, outcomes_of
    from hsoftmax.score_request import ScoreRequest, open_job_spec

    input = write(tmp_path / "in.ndjson", make_rows(3))
    request = ScoreRequest(input, tmp_path / "out.ndjson", Task("top_k"), Columns())
    opened = bundle.open_bundle(damaged / "1", check_hashes=False)
    spec = open_job_spec(request, BundleInfo.of(opened))
    with closing(spec.reader):
        first = next(shard_ranges(spec, ShardStart(0, 0, spec.reader.begin())))
    (tmp_path / "out.ndjson.parts").mkdir()
    job = RayJob(damaged / "1", request, spec.identity(), check_hashes)
    (outcome,) = outcomes_of(ShardActor(job)(message_table(shard_range=first)))
    if check_hashes:
        assert "weights.bin: expected SHA-256 " in outcome.error
    else:
        assert outcome.written is not None
