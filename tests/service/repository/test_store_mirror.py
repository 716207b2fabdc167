"""Tests of a service whose repository is a store: here a folder, read as the others are."""

import io
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from hsoftmax.service import Settings, create_app
from hsoftmax.service.context import context_of
from hsoftmax.service.errors import StartError
from hsoftmax.service.logging import json_log
from hsoftmax.stores.cache import Cache
from tests.service.conftest import HIDDEN

SECONDS = 20


class Service:
    """A running app whose repository is the folder, read as a store ten times a second."""

    def __init__(self, folder: Path, cache: Path, **settings) -> None:
        self.stream = io.BytesIO()
        self.cache = Cache(cache)
        self.app = create_app(
            Settings(repository=f"file://{folder}", store_cache=cache, threads=1,
                     store_interval=0.1, **settings),
            log=json_log("info", self.stream),
        )  # fmt: skip
        self.client = TestClient(self.app, raise_server_exceptions=False)

    def __enter__(self) -> "Service":
        self.client.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.client.__exit__(*error)

    def until(self, is_so: Callable[[], bool]) -> None:
        deadline = time.monotonic() + SECONDS
        while not is_so():
            assert time.monotonic() < deadline, self.stream.getvalue().decode()
            time.sleep(0.02)

    def served(self) -> list[str]:
        return sorted(f"{one.name}/{one.version}" for one in context_of(self.app).repository)

    def ready(self) -> bool:
        return self.client.get("/healthz/ready").status_code == 200

    def events(self, event: str) -> list[dict]:
        lines = map(json.loads, self.stream.getvalue().splitlines())
        return [line for line in lines if line["event"] == event]

    def answer(self, version: str) -> list[list[float]]:
        query = {"inputs": [[0.5] * HIDDEN], "version": version}
        response = self.client.post("/v1/models/words/probabilities", json=query)
        assert response.status_code == 200, response.text
        return response.json()["probabilities"]


def test_versions_of_a_store_are_served_replaced_and_dropped(copy, spare, tmp_path):
    with Service(copy, tmp_path / "cache") as service:
        service.until(service.ready)
        assert service.served() == ["plain/7", "words/1", "words/2"]
        first = service.answer("1")
        shutil.copytree(spare, copy / "words" / "3")
        service.until(lambda: "words/3" in service.served())
        shutil.rmtree(copy / "words" / "2")
        service.until(lambda: "words/2" not in service.served())
        shutil.rmtree(copy / "words" / "1")
        shutil.copytree(spare, copy / "words" / "1")
        service.until(lambda: service.answer("1") == service.answer("3") != first)
        contents = {path.name for path in (tmp_path / "cache" / "bundles").iterdir()}
        assert set(service.cache.linked().values()) <= contents


def test_a_store_that_is_away_costs_nothing_that_is_served(copy, tmp_path):
    with Service(copy, tmp_path / "cache") as service:
        service.until(service.ready)
        before = service.answer("2")
        copy.rename(tmp_path / "away")
        service.until(lambda: bool(service.events("store_failed")))
        time.sleep(0.5)
        assert service.ready()
        assert service.answer("2") == before
        assert len(service.events("store_failed")) == 1
        assert "hsoftmax_store_up 0.0" in service.client.get("/metrics").text
        (tmp_path / "away").rename(copy)
        service.until(lambda: bool(service.events("store_recovered")))
        service.until(lambda: "hsoftmax_store_up 1.0" in service.client.get("/metrics").text)
    copy.rename(tmp_path / "away")
    with Service(copy, tmp_path / "cache") as restarted:  # what was downloaded is still there
        restarted.until(restarted.ready)
        assert restarted.answer("2") == before


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def half(version: Path) -> None:
    (version / "bundle.json").unlink()


def short(version: Path) -> None:
    (version / "weights.bin").unlink()


def wrong_bytes(version: Path) -> None:
    flip(version / "weights.bin")


def wrong_manifest(version: Path) -> None:
    flip(version / "bundle.json")
    (version / "bundle.json").write_text("{")


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [(short, "expected weights.bin of"), (wrong_bytes, "expected SHA-256"),
     (wrong_manifest, "bundle.json")],
)  # fmt: skip
def test_a_damaged_version_is_one_line_and_the_old_goes_on(copy, spare, tmp_path, damage, sentence):
    with Service(copy, tmp_path / "cache") as service:
        service.until(service.ready)
        before = service.answer("2")
        damage(spare)
        shutil.copytree(spare, tmp_path / "words_2_new")
        shutil.rmtree(copy / "words" / "2")
        (tmp_path / "words_2_new").rename(copy / "words" / "2")  # the same version, damaged
        service.until(lambda: bool(service.events("store_version_refused")))
        time.sleep(0.3)
        refused = service.events("store_version_refused")
        assert [sentence in one["reason"] for one in refused] == [True]
        assert service.answer("2") == before
        assert service.ready()
        assert "hsoftmax_store_refused_versions 1.0" in service.client.get("/metrics").text


def test_a_half_uploaded_version_is_not_there_yet(copy, spare, tmp_path):
    shutil.copytree(spare, copy / "words" / "3")
    half(copy / "words" / "3")
    with Service(copy, tmp_path / "cache") as service:
        service.until(service.ready)
        assert service.served() == ["plain/7", "words/1", "words/2"]
        assert not service.events("store_version_refused")
        shutil.copy(spare / "bundle.json", copy / "words" / "3")
        service.until(lambda: "words/3" in service.served())


def test_an_empty_or_missing_store_is_one_line(tmp_path):
    (tmp_path / "empty").mkdir()
    with Service(tmp_path / "empty", tmp_path / "cache") as service:
        service.until(lambda: bool(service.events("store_empty")))
        assert not service.ready()
    with pytest.raises(StartError, match="expected a folder, got none"):
        Service(tmp_path / "none", tmp_path / "other")


def test_the_cache_keeps_the_newest_of_each_bundle_in_any_case(copy, tmp_path):
    with Service(copy, tmp_path / "cache", store_cache_size=1) as service:
        service.until(service.ready)
        assert service.served() == ["plain/7", "words/2"]
        assert service.events("store_cache_full")[0]["skipped"] == ["words/1"]


def test_processes_that_share_a_cache_download_once(copy, spare, tmp_path):
    with Service(copy, tmp_path / "cache") as first, Service(copy, tmp_path / "cache") as second:
        first.until(first.ready)
        second.until(second.ready)
        shutil.copytree(spare, copy / "words" / "3")
        for service in (first, second):
            service.until(lambda service=service: "words/3" in service.served())
        assert not (first.events("store_mirrored") and second.events("store_mirrored"))
    shutil.rmtree(copy / "words" / "3")
    with Service(copy, tmp_path / "cache") as third:  # the lock is free again
        third.until(lambda: "words/3" not in third.served())


def test_a_small_file_beside_the_versions_comes_along(copy, tmp_path):
    (copy / "words" / "notes.json").write_text("{}")
    with Service(copy, tmp_path / "cache") as service:
        service.until(service.ready)
        mirrored = service.cache.repository / "words" / "notes.json"
        service.until(mirrored.is_file)
        (copy / "words" / "notes.json").unlink()
        service.until(lambda: not mirrored.exists())


@pytest.mark.parametrize("below", ["words", "words/2"])
def test_a_store_may_be_a_model_folder_or_one_bundle(copy, tmp_path, below):
    with Service(copy / below, tmp_path / "cache") as service:
        service.until(service.ready)
        assert service.served() == (["words/1", "words/2"] if below == "words" else ["words/2"])


def put(path: Path, text: str) -> None:
    """Write a file that appears whole, as an object does: the service reads it at any moment."""
    new = path.with_name(f".{path.name}")
    new.write_text(text)
    new.replace(path)


def test_a_rollout_in_the_store_is_followed(copy, spare, tmp_path):
    rollout = copy / "words" / "rollout.json"
    put(rollout, '{"pin": "stable", "aliases": {"stable": 1}}')
    with Service(copy, tmp_path / "cache") as service:
        service.until(service.ready)

        def answering() -> str:
            query = {"inputs": [[0.5] * HIDDEN]}
            response = service.client.post("/v1/models/words/probabilities", json=query)
            assert response.status_code == 200, response.text
            return response.json()["version"]

        assert answering() == "1"
        shutil.copytree(spare, copy / "words" / "3")
        service.until(lambda: "words/3" in service.served())
        assert answering() == "1"
        put(rollout, '{"pin": 4}')
        service.until(lambda: bool(service.events("rollout_refused")))
        assert answering() == "1"
        put(rollout, '{"pin": 3}')
        service.until(lambda: answering() == "3")
        put(rollout, '{"pin": 2}')  # of the same size
        service.until(lambda: answering() == "2")
        rollout.unlink()
        service.until(lambda: answering() == "3")
        assert len(service.events("rollout_refused")) == 1
