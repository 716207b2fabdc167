"""Workers agree on what is served, on a full disk for temporary files and when one fails."""

import http.client
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service.processes import Process
from tests.service.small_disk import fill, small_disk

from .test_supervisor import ADMIN, answered, ask, eventually, numbers, workers_of

UNLOAD, RELOAD = "/v1/models/words/unload", "/v1/models/words/reload"


@pytest.fixture
def temporary(tmp_path, monkeypatch) -> Iterator[Path]:
    """Folder for temporary files on a small disk; services that start later use it."""
    with small_disk(tmp_path / "temporary", 2**20) as folder:
        monkeypatch.setenv("TMPDIR", str(folder))
        yield folder


def pair_of(start, copy, **settings) -> Process:
    server = start(copy, workers=2, admin_key="root", **settings)
    server.until("loaded")  # the second
    return server


def test_a_full_folder_for_temporary_files_costs_neither_metrics_nor_changes(
    start, copy, temporary
):
    server = pair_of(start, copy)
    assert ask(server) == 200
    fill(temporary)
    for _ in range(10):
        assert answered(numbers(server)) == 1
    assert server.call("POST", UNLOAD, headers=ADMIN)[0] == 200
    assert {ask(server) for _ in range(20)} == {404}
    os.kill(workers_of(server)[0], signal.SIGKILL)
    assert server.until("worker_ended")["signal"] == "SIGKILL"
    server.until("loaded")
    assert {ask(server) for _ in range(20)} == {404}
    assert server.call("POST", RELOAD, headers=ADMIN)[0] == 200
    assert {ask(server) for _ in range(20)} == {200}
    assert answered(numbers(server)) == 1 + 20 + 1  # the reload, too


def test_a_service_starts_on_a_full_folder_for_temporary_files(start, copy, temporary):
    fill(temporary)
    server = pair_of(start, copy)
    assert {ask(server) for _ in range(10)} == {200}
    assert answered(numbers(server)) == 10


FAILS_HALF_WAY = """
import os
from hsoftmax.service import Settings, control, serve
from hsoftmax.service.workers.channel import WorkerChannel

broadcast = WorkerChannel.broadcast

async def broadcast_or_die(channel, message):
    if os.path.exists(os.environ["FAIL"]):
        os._exit(9)
    return await broadcast(channel, message)

WorkerChannel.broadcast = broadcast_or_die
if __name__ == "__main__":
    serve(Settings())
"""


def test_workers_agree_after_one_of_them_dies_half_way(start, copy, tmp_path, monkeypatch):
    """The worker that got the request ends after its decision, before it told the other one."""
    script = tmp_path / "fails_half_way.py"
    script.write_text(FAILS_HALF_WAY)
    monkeypatch.setenv("FAIL", str(tmp_path / "fail"))
    run = f"import runpy; runpy.run_path({str(script)!r}, run_name='__main__')"
    server = pair_of(start, copy, run=run)
    (tmp_path / "fail").touch()
    with pytest.raises(http.client.RemoteDisconnected):
        server.call("POST", UNLOAD, headers=ADMIN)
    assert server.until("worker_ended")["code"] == 9
    server.until("loaded")
    eventually(lambda: {ask(server) for _ in range(20)} == {404})
    (tmp_path / "fail").unlink()
    assert server.call("POST", RELOAD, headers=ADMIN)[0] == 200
    assert {ask(server) for _ in range(20)} == {200}


REFUSES = """
import os
from pathlib import Path
from hsoftmax.bundle import BundleError
from hsoftmax.service import Settings, serve
from hsoftmax.service.repository import version_loader

load_bundle = version_loader.load_bundle

def load_or_refuse(name, version, path, **options):
    fail = Path(os.environ["FAIL"])
    if version == 3 and fail.exists() and os.getpid() == int(fail.read_text()):
        raise BundleError("out of memory")
    return load_bundle(name, version, path, **options)

version_loader.load_bundle = load_or_refuse
if __name__ == "__main__":
    serve(Settings())
"""


def test_a_worker_that_alone_refuses_a_version_is_replaced(
    start, copy, spare, tmp_path, monkeypatch
):
    script = tmp_path / "refuses.py"
    script.write_text(REFUSES)
    monkeypatch.setenv("FAIL", str(tmp_path / "fail"))
    run = f"import runpy; runpy.run_path({str(script)!r}, run_name='__main__')"
    server = pair_of(start, copy, run=run, watch=False)
    lacking = workers_of(server)[1]
    (tmp_path / "fail").write_text(str(lacking))
    spare.rename(copy / "words" / "3")
    server.call("POST", RELOAD, headers=ADMIN)
    server.until("worker_differs")
    server.until("worker_ended")
    server.until("loaded")
    assert lacking not in workers_of(server)
    versions = {server.get("/v1/models/words")[1]["version"] for _ in range(20)}
    assert versions == {"3"}
