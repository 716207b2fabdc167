"""Two nodes of a Ray cluster give what one machine gives, whatever dies meanwhile."""

import os
import signal
import sqlite3
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
from hsoftmax.scoring import Columns, Facts, ScoringError, Start, Task, Workspace, cuts
from tests.hsoftmax.conftest import write_flawed
from tests.hsoftmax.test_score_docs import PAGE, ROOT
from tests.scoring.conftest import LABELS, make_model, make_rows, write

pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("ignore")]  # Ray's own are not errors

SMALL = ["--batch", "4", "--shard-rows", "10"]
LONG = ["--batch", "4", "--shard-rows", "200", "--threads", "1"]
MEMORY = 80 * 2**20  # the least that Ray takes for its objects
PATIENCE = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500,
            "health_check_timeout_ms": 500, "health_check_failure_threshold": 3}  # fmt: skip


@pytest.fixture(scope="module")
def cluster() -> Iterator:
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 2, "object_store_memory": MEMORY, "include_dashboard": False,
            "_system_config": PATIENCE}  # fmt: skip
    cluster = Cluster(initialize_head=True, head_node_args=head)
    yield cluster
    cluster.shutdown()


@pytest.fixture
def second(cluster) -> Iterator:
    """A node beside the head, which a test may kill."""
    node = cluster.add_node(num_cpus=2, object_store_memory=MEMORY)
    cluster.wait_for_nodes()
    yield node
    with suppress(Exception):
        cluster.remove_node(node, allow_graceful=False)


@pytest.fixture(scope="module")
def long_job(made, tmp_path_factory) -> tuple[Path, Path]:
    """Rows for some seconds, a hundred shards, some of them wrong; and what comes of them here."""
    folder = tmp_path_factory.mktemp("long")
    source, wanted = write_flawed(folder / "in.ndjson", 20_000), folder / "wanted.ndjson"
    assert run(call(made, source, wanted, *LONG)) == 0
    return source, wanted


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
    """The processes of this node that make shards."""
    pid = node.all_processes["raylet"][0].process.pid
    stats = [path.read_text() for path in Path("/proc").glob("[0-9]*/stat")]
    parents = {int(stat.split()[0]): int(stat.rpartition(")")[2].split()[1]) for stat in stats}
    children = [child for child, parent in parents.items() if parent == pid]
    titles = {child: Path(f"/proc/{child}/cmdline").read_bytes() for child in children}
    return [child for child, title in titles.items() if b"MapBatches(Node)" in title]


def shards_of(output: Path) -> int:
    ledger = output.with_name(output.name + ".parts") / "ledger.sqlite"
    try:
        with closing(sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)) as db:
            return db.execute("SELECT count(*) FROM shards").fetchone()[0]
    except sqlite3.Error:
        return 0


def wait_for_shards(process: subprocess.Popen, output: Path, count: int) -> None:
    while shards_of(output) < count:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)


def everything(output: Path) -> list[bytes]:
    """All that a job leaves behind, but for the name."""
    beside = [output.with_name(output.name + end) for end in
              (".summary.json", ".sequences.ndjson", ".errors.ndjson")]  # fmt: skip
    assert not output.with_name(output.name + ".parts").exists()
    return [path.read_bytes() if path.exists() else b"" for path in (output, *beside)]


# --- the same as on one machine -----------------------------------------------------------------


@pytest.mark.parametrize("of", ["ndjson", "npy", "parquet", "arrow", "csv"])
def test_two_nodes_give_the_bytes_of_one_machine(made, cluster, second, tmp_path, of):
    rows = make_rows(137)
    source = write(tmp_path / f"in.{of}", rows)
    to = {"arrow": "npy"}.get(of, of)
    assert run(call(made, source, tmp_path / f"here.{to}", *SMALL)) == 0
    assert run(call(made, source, tmp_path / f"there.{to}", *SMALL, *on(cluster))) == 0
    assert everything(tmp_path / f"there.{to}") == everything(tmp_path / f"here.{to}")


def test_bad_rows_cost_only_themselves(made, cluster, second, tmp_path, capsys):
    rows = make_rows(60)
    rows[13]["input"][0] = None
    rows[41]["target"] = "no such word"
    source = write(tmp_path / "in.ndjson", rows)
    for to in ("ndjson", "npy"):
        assert run(call(made, source, tmp_path / f"here.{to}", *SMALL)) == 0
        assert run(call(made, source, tmp_path / f"there.{to}", *SMALL, *on(cluster))) == 0
        assert "60 rows, 58 scored, 2 failed" in capsys.readouterr().out.splitlines()[-1]
        assert everything(tmp_path / f"there.{to}") == everything(tmp_path / f"here.{to}")


def test_draws_and_folders_are_the_same(made, cluster, second, tmp_path):
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


def test_the_perplexity_of_the_held_out_text_is_the_one_number(cluster, second, tmp_path, capsys):
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
    said = capsys.readouterr().out.splitlines()[-1]
    (number,) = {part.split()[1] for part in PAGE.split("; ") if part.startswith("perplexity 7")}
    assert f"perplexity {number} over 2,000 words in 20 sequences" in said


# --- what dies meanwhile ------------------------------------------------------------------------


def test_a_node_killed_half_way_changes_nothing(made, cluster, second, long_job, tmp_path):
    source, wanted = long_job
    output = tmp_path / "out.ndjson"
    process = started(call(made, source, output, *LONG, *on(cluster)))
    wait_for_shards(process, output, 20)
    assert [len(actors_on(node)) for node in (cluster.head_node, second)] == [1, 1]
    cluster.remove_node(second, allow_graceful=False)
    at = shards_of(output)
    _, said = process.communicate(timeout=120)
    assert (process.returncode, said) == (0, b"")
    assert at < 100
    assert everything(output) == everything(wanted)


def test_an_actor_killed_half_way_changes_nothing(made, cluster, second, long_job, tmp_path):
    source, wanted = long_job
    output = tmp_path / "out.ndjson"
    process = started(call(made, source, output, *LONG, *on(cluster)))
    wait_for_shards(process, output, 20)
    for actor in actors_on(cluster.head_node):
        os.kill(actor, signal.SIGKILL)
    _, said = process.communicate(timeout=120)
    assert (process.returncode, said) == (0, b"")
    assert everything(output) == everything(wanted)


@pytest.mark.parametrize("next_engine", ["ray", "local"])
def test_a_killed_driver_is_resumed(made, cluster, second, long_job, tmp_path, next_engine):
    source, wanted = long_job
    output = tmp_path / "out.ndjson"
    process = started(call(made, source, output, *LONG, *on(cluster)))
    wait_for_shards(process, output, 20)
    process.kill()
    process.communicate()
    assert 20 <= shards_of(output) < 100
    assert not output.exists()
    engine = on(cluster) if next_engine == "ray" else []
    assert run(call(made, source, output, *LONG, *engine, "--resume")) == 0
    assert everything(output) == everything(wanted)


def test_a_job_begun_here_is_resumed_there(made, cluster, second, long_job, tmp_path):
    source, wanted = long_job
    output = tmp_path / "out.ndjson"
    process = started(call(made, source, output, *LONG))
    wait_for_shards(process, output, 10)
    process.kill()
    process.communicate()
    assert run(call(made, source, output, *LONG, *on(cluster), "--resume")) == 0
    assert everything(output) == everything(wanted)


# --- what a node does not see -------------------------------------------------------------------


@pytest.fixture
def elsewhere(monkeypatch):
    """Lets the nodes be told of other paths than the driver's, as if they had other disks."""
    from hsoftmax.runners import ray

    def elsewhere(**changed):
        def work(bundle, call, identity):
            from dataclasses import replace

            return replace(really(bundle, call, identity), **changed)

        monkeypatch.setattr(ray, "Work", work)

    really = ray.Work
    return elsewhere


def refusal(capsys) -> str:
    said = capsys.readouterr().err
    assert said.startswith("hsoftmax: node ")
    assert said.count("\n") == 1
    return said


def test_a_node_without_the_bundle_says_so(made, cluster, tmp_path, capsys, elsewhere):
    source = write(tmp_path / "in.ndjson", make_rows(30))
    elsewhere(bundle=tmp_path / "nowhere" / "1")
    assert run(call(made, source, tmp_path / "out.ndjson", *SMALL, *on(cluster))) in (1, 2)
    assert "nowhere/1" in refusal(capsys)
    assert not (tmp_path / "out.ndjson").exists()


def test_a_node_with_another_bundle_says_so(made, cluster, tmp_path, capsys, elsewhere):
    source = write(tmp_path / "in.ndjson", make_rows(30))
    other = tmp_path / "words"
    exporter.export_model(make_model(2), exporter.parse_destination(other / "1"), labels=LABELS)
    elsewhere(bundle=other / "1")
    assert run(call(made, source, tmp_path / "out.ndjson", *SMALL, *on(cluster))) == 1
    assert "expected digest" in refusal(capsys)


@pytest.fixture
def work(made, tmp_path):
    """What a node is told of a job over thirty rows, and its first cut."""
    from hsoftmax.runners.ray import Work
    from hsoftmax.score_request import Call, open_order

    source = write(tmp_path / "in.ndjson", make_rows(30))
    wanted = Call(source, tmp_path / "out.ndjson", Task("perplexity"), Columns(), shard_rows=10)
    order = open_order(wanted, Facts.of(bundle.open_bundle(made / "1")))
    with closing(order.source):
        first = next(cuts(order, Start(0, 0, order.source.begin())))
        return Work(made / "1", wanted, order.identity()), first


def test_a_node_that_does_not_see_the_output_says_so(work):
    from hsoftmax.runners.ray.actor import Node
    from hsoftmax.runners.ray.messages import outcomes_of, table

    (outcome,) = outcomes_of(Node(work[0])(table(cut=work[1])))
    assert "out.ndjson.parts: expected the folder of the job's shards, got none" in outcome.error


def test_a_shard_that_the_driver_does_not_see_ends_the_job(work, tmp_path):
    from hsoftmax.runners.ray.actor import Node
    from hsoftmax.runners.ray.driver import _written
    from hsoftmax.runners.ray.messages import outcomes_of, table

    (tmp_path / "out.ndjson.parts").mkdir()
    (outcome,) = outcomes_of(Node(work[0])(table(cut=work[1])))
    assert _written(outcome, Workspace(tmp_path / "out.ndjson.parts")).shard.rows == 10
    with pytest.raises(ScoringError, match="OUTPUT has to be where every node sees it"):
        _written(outcome, Workspace(tmp_path / "elsewhere.parts"))


def test_a_shard_at_which_processes_die_ends_the_job(work, tmp_path):
    from hsoftmax.runners.ray.actor import Node
    from hsoftmax.runners.ray.messages import outcomes_of, table

    (tmp_path / "out.ndjson.parts").mkdir()
    for i in range(5):
        Workspace(tmp_path / "out.ndjson.parts").aside(0, f"-{i}").touch()
    (outcome,) = outcomes_of(Node(work[0])(table(cut=work[1])))
    assert "shard 0: expected it to be made, got 5 processes that died at it" in outcome.error


def test_a_node_with_another_input_says_so(work, tmp_path):
    from hsoftmax.runners.ray.actor import Node
    from hsoftmax.runners.ray.messages import outcomes_of, table

    (tmp_path / "out.ndjson.parts").mkdir()
    write(tmp_path / "in.ndjson", make_rows(31))
    (outcome,) = outcomes_of(Node(work[0])(table(cut=work[1])))
    assert "INPUT has to be where all see it" in outcome.error


def test_rows_that_do_not_come_back_are_noticed(work, tmp_path):
    from hsoftmax.runners.ray.driver import _expect_end
    from hsoftmax.score_request import open_order

    told, first = work
    order = open_order(told.call, Facts.of(bundle.open_bundle(told.bundle)))
    with closing(order.source):
        end, _ = order.source.skip(first.start.position, 30)
        _expect_end(order, end)
        short, _ = order.source.skip(first.start.position, 20)
        with pytest.raises(ScoringError, match="expected all rows back, got those before line 21"):
            _expect_end(order, short)


def test_an_address_where_no_cluster_is(made, tmp_path, capsys):
    source = write(tmp_path / "in.ndjson", make_rows(3))
    arguments = call(made, source, tmp_path / "out.ndjson", "--engine", "ray")
    assert run([*arguments, "--address", "127.0.0.1:1"]) == 1
    assert "expected a Ray cluster at 127.0.0.1:1, got" in capsys.readouterr().err
