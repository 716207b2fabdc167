"""Bundles are added, replaced, unloaded and reloaded while the service answers."""

import asyncio
import gc
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from hsoftmax.service.context import context_of
from hsoftmax.service.health import Health
from hsoftmax.service.repository.polling import poll
from tests.service.conftest import CLUSTERS, HIDDEN, expect_error, serving

QUERY = {"inputs": [[0.5] * HIDDEN], "targets": [1]}
URL = "/v1/models/words/probabilities"
ADMIN = {"authorization": "Bearer root"}


def spoil(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def eventually(holds: Callable[[], bool], seconds: float = 5) -> float:
    """Wait until the condition holds; the seconds that it took."""
    started = time.monotonic()
    while not holds():
        assert time.monotonic() < started + seconds
        time.sleep(0.02)
    return time.monotonic() - started


def version(client) -> str:
    return client.post(URL, json=QUERY).json()["version"]


def test_a_new_version_is_served_soon_and_the_old_ones_stay_addressable(copy, spare):
    with serving(copy) as client:
        old = client.post(URL, json=QUERY)
        spare.rename(copy / "words" / "3")
        assert eventually(lambda: version(client) == "3") < 2.5
        pinned = client.post(URL, json=QUERY | {"version": 2})
        assert pinned.json() == old.json()
        about = client.get("/v1/models/words").json()
        assert (about["versions"], about["refused"]) == (["1", "2", "3"], {})
        assert f'digest="{about["digest"]}"' in client.get("/metrics").text


def test_a_bad_new_version_is_refused_and_the_old_goes_on(copy, spare):
    spoil(spare / "weights.bin")
    with serving(copy) as client:
        spare.rename(copy / "words" / "3")
        eventually(lambda: client.get("/v1/models/words").json()["refused"] != {})
        about = client.get("/v1/models/words").json()
        assert about["version"] == "2"
        assert about["refused"]["3"].startswith("words/3/weights.bin: expected SHA-256")
        assert "words/3" in client.get("/healthz/ready").json()["refused"]
        assert version(client) == "2"


def test_a_manifest_that_is_a_pipe_stops_no_other_bundle(copy, spare):
    with serving(copy) as client:
        (copy / "aaa" / "1").mkdir(parents=True)
        os.mkfifo(copy / "aaa" / "1" / "bundle.json")
        spare.rename(copy / "words" / "3")
        eventually(lambda: version(client) == "3")
        refused = client.get("/healthz/ready").json()["refused"]
    assert refused == {"aaa/1": "aaa/1/bundle.json: expected a regular file, got none"}


def test_a_version_replaced_by_a_bad_one_stays_as_it_was(copy, spare):
    spoil(spare / "top_k.onnx")
    with serving(copy) as client:
        digest = client.get("/v1/models/words").json()["digest"]
        (copy / "words" / "2").rename(copy / "old")
        spare.rename(copy / "words" / "2")
        context_of(client.app).repository.load()
        about = client.get("/v1/models/words").json()
        assert (about["digest"], list(about["refused"])) == (digest, ["2"])
        assert client.post(URL, json=QUERY).status_code == 200


def test_a_version_that_is_copied_slowly_is_served_once_it_is_whole(copy, spare):
    to = copy / "words" / "3"
    with serving(copy, watch=False) as client:
        repository = context_of(client.app).repository
        for file in sorted(spare.iterdir(), reverse=True):
            to.mkdir(exist_ok=True)
            shutil.copy(file, to)
            repository.load()
        assert version(client) == "3"
        assert repository.refused == {}


def test_an_unchanged_version_is_not_opened_again(copy):
    spoil(copy / "words" / "2" / "weights.bin")
    with serving(copy, watch=False) as client:
        repository = context_of(client.app).repository
        before, refused = list(repository), repository.refused
        repository._open = None  # opening a version would fail
        repository.load()
        assert list(repository) == before
        assert repository.refused == refused


def test_removed_versions_and_bundles_are_gone(copy):
    with serving(copy, watch=False) as client:
        shutil.rmtree(copy / "words" / "2")
        shutil.rmtree(copy / "plain")
        context_of(client.app).repository.load()
        assert version(client) == "1"
        expect_error(client.get("/v1/models/plain"), 404, "unknown_bundle", "is not served here")
        assert 'version="2"' not in client.get("/metrics").text


def test_polling_survives_a_folder_that_cannot_be_read(copy):
    class Flaky:
        loads = 0

        def load(self) -> None:
            self.loads += 1
            if self.loads < 3:
                raise PermissionError

    said = []
    repository, health = Flaky(), Health()
    health.failure = "the repository could not be read"
    context = SimpleNamespace(
        repository=repository, health=health, log=SimpleNamespace(exception=said.append)
    )

    async def main() -> None:
        watching = asyncio.create_task(
            poll(context.repository, context.log, context.health.recover, 0.01)
        )
        while health.failure:
            await asyncio.sleep(0.01)
        watching.cancel()

    asyncio.run(asyncio.wait_for(main(), 5))
    assert said == ["watch_failed"]


def test_unload_and_reload(copy, spare):
    with serving(copy, watch=False, admin_key="root") as client:
        gone = client.post("/v1/models/words/unload", headers=ADMIN)
        assert gone.json() == {"name": "words", "status": "unloaded"}
        expect_error(client.post(URL, json=QUERY), 404, "unknown_bundle", "was unloaded")
        again = client.post("/v1/models/words/unload", headers=ADMIN)
        expect_error(again, 404, "unknown_bundle", "was unloaded")
        assert client.get("/healthz/ready").json()["models"] == ["plain"]
        context_of(client.app).repository.load()  # as the poll does
        assert client.get("/v1/models/words").status_code == 404
        spare.rename(copy / "words" / "3")
        back = client.post("/v1/models/words/reload", headers=ADMIN)
        assert back.json() == client.get("/v1/models/words").json()
        assert back.headers["x-hsoftmax-digest"] == back.json()["digest"]
        assert version(client) == "3"


def test_a_reload_of_a_bad_version_says_so_and_can_be_repeated(copy, spare):
    spoil(spare / "weights.bin")
    spare.rename(copy / "words" / "3")
    with serving(copy, watch=False, admin_key="root") as client:
        url = "/v1/models/words/reload"
        bad = client.post(url, headers=ADMIN)
        expect_error(bad, 409, "bundle_refused", "reload: words/3/weights.bin: expected SHA-256")
        assert version(client) == "2"
        shutil.rmtree(copy / "words" / "3")
        assert client.post(url, headers=ADMIN).json()["refused"] == {}
        nothing = client.post("/v1/models/nonesuch/reload", headers=ADMIN)
        expect_error(nothing, 404, "unknown_bundle")


def test_a_version_stays_usable_after_it_is_unloaded(copy):
    with serving(copy, watch=False) as client:
        repository = context_of(client.app).repository
        served = repository.find("words")
        repository.unload("words")
        session = served.session("cluster_log_probs")
        hidden = np.zeros((1, HIDDEN), np.float32)
        assert session.run({"hidden": hidden})[0].shape == (1, CLUSTERS)


@pytest.mark.parametrize("times", [8, pytest.param(50, marks=pytest.mark.slow)])
def test_reloading_loses_no_request_and_mixes_no_versions(copy, spare, start, times):
    """A bundle is replaced and reloaded many times under load."""
    place, aside = copy / "words" / "2", spare
    server = start(copy, watch=False, admin_key="root")
    wanted = dict(replaced(server, place, aside) for _ in range(2))
    assert len(wanted) == 2
    hammers = [Hammer(server.connect(), wanted) for _ in range(3)]
    for _ in range(times):
        replaced(server, place, aside)
    for hammer in hammers:
        hammer.stop()
    seen = [digest for hammer in hammers for digest in hammer.seen]
    assert len(seen) > 10 * times
    assert set(seen) == set(wanted)


def replaced(server, place: Path, aside: Path) -> tuple[str, float]:
    """Swap the two folders and reload; the served digest, and the bundle's answer to the query."""
    place.rename(aside.with_name("moving"))
    aside.rename(place)
    aside.with_name("moving").rename(aside)
    status, about = server.call("POST", "/v1/models/words/reload", headers=ADMIN)
    assert (status, about["refused"]) == (200, {})
    return about["digest"], server.call("POST", URL, json.dumps(QUERY))[1]["probabilities"]


class Hammer:
    """A client that repeats a query; every answer must be that of the digest in its header."""

    def __init__(self, connection, wanted: dict) -> None:
        self.seen: list[str] = []
        self._connection = connection
        self._wanted = wanted
        self._going = True
        self._failure = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def stop(self) -> None:
        self._going = False
        self._thread.join()
        assert self._failure is None, self._failure

    def _run(self) -> None:
        try:
            while self._going:
                self._ask()
        except BaseException as error:
            self._failure = error

    def _ask(self) -> None:
        self._connection.request("POST", URL, json.dumps(QUERY))
        answer = self._connection.getresponse()
        body = json.loads(answer.read())
        assert answer.status == 200, body
        digest = answer.getheader("x-hsoftmax-digest")
        assert body["probabilities"] == self._wanted[digest]
        self.seen.append(digest)


EXPORT_LARGE = """
import sys, pathlib, numpy as np
from hsoftmax import exporter, models
normal = lambda *shape: np.random.default_rng(0).normal(size=shape).astype(np.float32)
model = models.from_theano(
    normal(256, 128), normal(128), normal(128, 256, 256), normal(128, 256), num_targets=2**15
)
exporter.export_model(model, exporter.parse_destination(pathlib.Path(sys.argv[1])))
"""


def test_unloading_returns_the_memory(copy, start):
    """After 34 MB of weights are read and unloaded, their pages and their map are gone."""
    large = copy / "large" / "1"
    subprocess.run([sys.executable, "-c", EXPORT_LARGE, large], check=True)
    server = start(copy, watch=False, admin_key="root")
    pid = server.process.pid
    full = json.dumps({"inputs": [[0.1] * 256]})
    status, _ = server.call("POST", "/v1/models/large/probabilities", full)
    assert status == 200
    before = resident(pid)
    assert str(large) in Path(f"/proc/{pid}/maps").read_text()
    server.call("POST", "/v1/models/large/unload", headers=ADMIN)
    assert str(large) not in Path(f"/proc/{pid}/maps").read_text()
    assert before - resident(pid) > 30e6
    assert server.get("/v1/models/plain")[0] == 200


def resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


def test_loaded_bundles_are_excluded_from_garbage_collection(repository):
    gc.unfreeze()
    with serving(repository) as client:
        eventually(lambda: client.get("/healthz/ready").status_code == 200)
        eventually(lambda: gc.get_freeze_count() > len(gc.get_objects()))
