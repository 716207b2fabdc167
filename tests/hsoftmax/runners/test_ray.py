"""Two nodes of a Ray cluster write the same output as one machine, even if processes die."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import numpy as np
import pytest

from hsoftmax import bundle, exporter
from hsoftmax.cli import run
from hsoftmax.scoring import (
    BundleInfo,
    Columns,
    ScoringError,
    ShardStart,
    Task,
    Workspace,
    shard_ranges,
)
from tests.hsoftmax.conftest import write_flawed
from tests.hsoftmax.test_score_docs import PAGE, ROOT
from tests.scoring.conftest import LABELS, make_model, make_rows, write

pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("ignore")]  # Ray's own are not errors

SMALL = ["--batch", "4", "--shard-rows", "10"]
LONG = ["--batch", "4", "--shard-rows", "200", "--threads", "1"]
MEMORY = 80 * 2**20  # the least that Ray takes for its objects
HEALTH_CHECKS = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 500,
    "health_check_failure_threshold": 3,
}


@pytest.fixture(scope="module")
def cluster() -> Iterator:
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 2, "object_store_memory": MEMORY, "include_dashboard": False,
            "_system_config": HEALTH_CHECKS}  # fmt: skip
    cluster = Cluster(initialize_head=True, head_node_args=head)
    yield cluster
    cluster.shutdown()


@pytest.fixture
def second(cluster) -> Iterator:
    """A node besides the head, which a test may kill."""
    node = cluster.add_node(num_cpus=2, object_store_memory=MEMORY)
    cluster.wait_for_nodes()
    yield node
    with suppress(Exception):
        cluster.remove_node(node, allow_graceful=False)


@pytest.fixture(scope="module")
def long_job(made, tmp_path_factory) -> tuple[Path, Path]:
    """An input of a hundred shards, with some invalid rows, and its output on one machine."""
    folder = tmp_path_factory.mktemp("long")
    source, expected = write_flawed(folder / "in.ndjson", 20_000), folder / "wanted.ndjson"
    assert run(call(made, source, expected, *LONG)) == 0
    return source, expected


def call(made: Path, source: Path, output: Path, *options: str, task: str = "perplexity") -> list:
    return ["score", str(made), str(source), str(output), "--task", task, *options]


def on(cluster) -> list[str]:
    return ["--engine", "ray", "--address", cluster.address]


def started(arguments: list[str]) -> subprocess.Popen:
    program = "import sys; from hsoftmax.cli import main; main()"
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", program, *arguments],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd="/",
    )  # fmt: skip


def actors_on(node) -> list[int]:
    """Returns the ids of the processes on this node that make shards."""
    pid = node.all_processes["raylet"][0].process.pid
    stats = [path.read_text() for path in Path("/proc").glob("[0-9]*/stat")]
    parents = {int(stat.split()[0]): int(stat.rpartition(")")[2].split()[1]) for stat in stats}
    children = [child for child, parent in parents.items() if parent == pid]
    titles = {child: Path(f"/proc/{child}/cmdline").read_bytes() for child in children}
    return [child for child, title in titles.items() if b"MapBatches(ShardActor)" in title]


def shards_of(output: Path) -> int:
    """Count the shards in place; the checkpoint database itself is open for the job alone."""
    return len(list(output.with_name(output.name + ".parts").glob("shard-????????")))


def wait_for_shards(process: subprocess.Popen, output: Path, count: int) -> None:
    while shards_of(output) < count:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)


def output_files(output: Path) -> list[bytes]:
    """Returns the contents of all files of a finished job."""
    beside = [output.with_name(output.name + end) for end in
              (".summary.json", ".sequences.ndjson", ".errors.ndjson")]  # fmt: skip
    assert not output.with_name(output.name + ".parts").exists()
    return [path.read_bytes() if path.exists() else b"" for path in (output, *beside)]


# --- the same as on one machine -----------------------------------------------------------------


@pytest.mark.parametrize("of", ["ndjson", "npy", "parquet", "arrow", "csv"])
def test_two_nodes_write_the_same_bytes_as_one_machine(made, cluster, second, tmp_path, of):
    rows = make_rows(137)
    source = write(tmp_path / f"in.{of}", rows)
    to = {"arrow": "npy"}.get(of, of)
    assert run(call(made, source, tmp_path / f"here.{to}", *SMALL)) == 0
    assert run(call(made, source, tmp_path / f"there.{to}", *SMALL, *on(cluster))) == 0
    assert output_files(tmp_path / f"there.{to}") == output_files(tmp_path / f"here.{to}")


def test_an_invalid_row_fails_only_itself(made, cluster, second, tmp_path, capsys):
    rows = make_rows(60)
    rows[13]["input"][0] = None
    rows[41]["target"] = "no such word"
    source = write(tmp_path / "in.ndjson", rows)
    for to in ("ndjson", "npy"):
        assert run(call(made, source, tmp_path / f"here.{to}", *SMALL)) == 0
        assert run(call(made, source, tmp_path / f"there.{to}", *SMALL, *on(cluster))) == 0
        assert "60 rows, 58 scored, 2 failed" in capsys.readouterr().out.splitlines()[-1]
        assert output_files(tmp_path / f"there.{to}") == output_files(tmp_path / f"here.{to}")


def test_samples_and_folders_are_the_same(made, cluster, second, tmp_path):
    (tmp_path / "in").mkdir()
    for i in range(3):
        write(tmp_path / "in" / f"{i}.ndjson", make_rows(23, seed=i))
    options = [*SMALL, "--num-samples", "3", "--seed", "5"]
    for name, engine in (("here", []), ("there", on(cluster))):
        arguments = call(made, tmp_path / "in", tmp_path / name, *options, *engine, task="sample")
        assert run(arguments) == 0
    here, there = (sorted((tmp_path / name).iterdir()) for name in ("here", "there"))
    assert [path.name for path in there] == [path.name for path in here]
    assert [path.read_bytes() for path in there] == [path.read_bytes() for path in here]


def test_an_empty_input_has_an_empty_output(made, cluster, tmp_path):
    (tmp_path / "in.ndjson").write_bytes(b"")
    assert run(call(made, tmp_path / "in.ndjson", tmp_path / "out.ndjson", *on(cluster))) == 0
    assert (tmp_path / "out.ndjson").read_bytes() == b""


def test_the_held_out_perplexity_is_the_one_in_the_docs(cluster, second, tmp_path, capsys):
    example = ROOT / "examples" / "state_of_the_union"
    heldout = np.load(example / "heldout.npz")
    rows = np.zeros(len(heldout["target"]), [("input", "f4", heldout["hidden"].shape[1]),
                                             ("target", "i8"), ("sequence", "i8")])  # fmt: skip
    rows["input"], rows["target"] = heldout["hidden"], heldout["target"]
    rows["sequence"] = np.arange(len(rows)) // 100
    np.save(tmp_path / "in.npy", rows)
    labels = ["--labels", str(example / "labels.txt")]
    weights = str(example / "weights.npz")
    assert run(["export", weights, *labels, "--to", str(tmp_path / "sotu")]) == 0
    options = ["--shard-rows", "300", *on(cluster)]
    assert run(call(tmp_path / "sotu", tmp_path / "in.npy", tmp_path / "out.npy", *options)) == 0
    printed = capsys.readouterr().out.splitlines()[-1]
    (number,) = {part.split()[1] for part in PAGE.split("; ") if part.startswith("perplexity 7")}
    assert f"perplexity {number} over 2,000 words in 20 sequences" in printed


# --- killed processes ---------------------------------------------------------------------------


def test_a_killed_node_does_not_change_the_output(made, cluster, second, long_job, tmp_path):
    source, expected = long_job
    output = tmp_path / "out.ndjson"
    process = started(call(made, source, output, *LONG, *on(cluster)))
    wait_for_shards(process, output, 20)
    assert [len(actors_on(node)) for node in (cluster.head_node, second)] == [1, 1]
    cluster.remove_node(second, allow_graceful=False)
    at = shards_of(output)
    _, printed = process.communicate(timeout=120)
    assert (process.returncode, printed) == (0, b"")
    assert at < 100
    assert output_files(output) == output_files(expected)


def test_a_killed_actor_does_not_change_the_output(made, cluster, second, long_job, tmp_path):
    source, expected = long_job
    output = tmp_path / "out.ndjson"
    process = started(call(made, source, output, *LONG, *on(cluster)))
    wait_for_shards(process, output, 20)
    for actor in actors_on(cluster.head_node):
        os.kill(actor, signal.SIGKILL)
    _, printed = process.communicate(timeout=120)
    assert (process.returncode, printed) == (0, b"")
    assert output_files(output) == output_files(expected)


@pytest.mark.parametrize("next_engine", ["ray", "local"])
def test_a_job_with_a_killed_driver_is_resumed(
    made, cluster, second, long_job, tmp_path, next_engine
):
    source, expected = long_job
    output = tmp_path / "out.ndjson"
    process = started(call(made, source, output, *LONG, *on(cluster)))
    wait_for_shards(process, output, 20)
    process.kill()
    process.communicate()
    assert 20 <= shards_of(output) < 100
    assert not output.exists()
    engine = on(cluster) if next_engine == "ray" else []
    assert run(call(made, source, output, *LONG, *engine, "--resume")) == 0
    assert output_files(output) == output_files(expected)


def test_a_local_job_is_resumed_on_the_cluster(made, cluster, second, long_job, tmp_path):
    source, expected = long_job
    output = tmp_path / "out.ndjson"
    process = started(call(made, source, output, *LONG))
    wait_for_shards(process, output, 10)
    process.kill()
    process.communicate()
    assert run(call(made, source, output, *LONG, *on(cluster), "--resume")) == 0
    assert output_files(output) == output_files(expected)


# --- differing nodes ----------------------------------------------------------------------------


@pytest.fixture
def node_sees(monkeypatch):
    """Returns a function that sends the nodes other paths, as if they had other disks."""
    from hsoftmax.runners import ray

    def node_sees(**changed):
        def changed_job(*arguments):
            from dataclasses import replace

            return replace(original(*arguments), **changed)

        monkeypatch.setattr(ray, "RayJob", changed_job)

    original = ray.RayJob
    return node_sees


def refusal(capsys) -> str:
    printed = capsys.readouterr().err
    assert printed.startswith("hsoftmax: node ")
    assert printed.count("\n") == 1
    return printed


def test_a_node_without_the_bundle_is_an_error(made, cluster, tmp_path, capsys, node_sees):
    source = write(tmp_path / "in.ndjson", make_rows(30))
    node_sees(bundle=tmp_path / "nowhere" / "1")
    assert run(call(made, source, tmp_path / "out.ndjson", *SMALL, *on(cluster))) in (1, 2)
    assert "nowhere/1" in refusal(capsys)
    assert not (tmp_path / "out.ndjson").exists()


def test_a_node_with_another_bundle_is_an_error(made, cluster, tmp_path, capsys, node_sees):
    source = write(tmp_path / "in.ndjson", make_rows(30))
    other = tmp_path / "words"
    exporter.export_model(make_model(2), exporter.parse_destination(other / "1"), labels=LABELS)
    node_sees(bundle=other / "1")
    assert run(call(made, source, tmp_path / "out.ndjson", *SMALL, *on(cluster))) == 1
    assert "expected digest" in refusal(capsys)


@pytest.fixture
def job_and_range(made, tmp_path):
    """A job over thirty rows as a node gets it, and its first shard range."""
    from hsoftmax.runners.ray import RayJob
    from hsoftmax.score_request import ScoreRequest, open_job_spec

    source = write(tmp_path / "in.ndjson", make_rows(30))
    request = ScoreRequest(
        source, tmp_path / "out.ndjson", Task("perplexity"), Columns(), shard_rows=10
    )
    spec = open_job_spec(request, BundleInfo.of(bundle.open_bundle(made / "1")))
    with closing(spec.reader):
        first = next(shard_ranges(spec, ShardStart(0, 0, spec.reader.begin())))
        return RayJob(made / "1", request, spec.identity()), first


def test_a_node_without_the_output_folder_is_an_error(job_and_range):
    from hsoftmax.runners.ray.actor import ShardActor
    from hsoftmax.runners.ray.messages import message_table, outcomes_of

    job, shard_range = job_and_range
    (outcome,) = outcomes_of(ShardActor(job)(message_table(shard_range=shard_range)))
    assert "out.ndjson.parts: expected the folder of the job's shards, got none" in outcome.error


def test_a_shard_file_that_the_driver_cannot_see_is_an_error(job_and_range, tmp_path):
    from hsoftmax.runners.ray.actor import ShardActor
    from hsoftmax.runners.ray.driver import _written
    from hsoftmax.runners.ray.messages import message_table, outcomes_of

    (tmp_path / "out.ndjson.parts").mkdir()
    job, shard_range = job_and_range
    (outcome,) = outcomes_of(ShardActor(job)(message_table(shard_range=shard_range)))
    assert _written(outcome, Workspace(tmp_path / "out.ndjson.parts")).shard.rows == 10
    with pytest.raises(ScoringError, match="OUTPUT has to be where every node sees it"):
        _written(outcome, Workspace(tmp_path / "elsewhere.parts"))


def test_a_shard_with_too_many_dead_attempts_is_an_error(job_and_range, tmp_path):
    from hsoftmax.runners.ray.actor import ShardActor
    from hsoftmax.runners.ray.messages import message_table, outcomes_of

    (tmp_path / "out.ndjson.parts").mkdir()
    for i in range(5):
        Workspace(tmp_path / "out.ndjson.parts").temp_shard(0, f"-{i}").touch()
    job, shard_range = job_and_range
    (outcome,) = outcomes_of(ShardActor(job)(message_table(shard_range=shard_range)))
    assert "shard 0: expected it to be made, got 5 processes that died at it" in outcome.error


def test_a_node_with_another_input_is_an_error(job_and_range, tmp_path):
    from hsoftmax.runners.ray.actor import ShardActor
    from hsoftmax.runners.ray.messages import message_table, outcomes_of

    (tmp_path / "out.ndjson.parts").mkdir()
    write(tmp_path / "in.ndjson", make_rows(31))
    job, shard_range = job_and_range
    (outcome,) = outcomes_of(ShardActor(job)(message_table(shard_range=shard_range)))
    assert "INPUT has to be where all see it" in outcome.error


def test_missing_rows_are_an_error(job_and_range, tmp_path):
    from hsoftmax.runners.ray.driver import _expect_end
    from hsoftmax.score_request import open_job_spec

    job, first = job_and_range
    spec = open_job_spec(job.request, BundleInfo.of(bundle.open_bundle(job.bundle)))
    with closing(spec.reader):
        end, _ = spec.reader.skip(first.start.position, 30)
        _expect_end(spec, end)
        short, _ = spec.reader.skip(first.start.position, 20)
        with pytest.raises(ScoringError, match="expected all rows back, got those before line 21"):
            _expect_end(spec, short)


def test_an_address_without_a_cluster_is_a_one_line_error(made, tmp_path, capsys):
    source = write(tmp_path / "in.ndjson", make_rows(3))
    arguments = call(made, source, tmp_path / "out.ndjson", "--engine", "ray")
    assert run([*arguments, "--address", "127.0.0.1:1"]) == 1
    assert "expected a Ray cluster at 127.0.0.1:1, got" in capsys.readouterr().err
