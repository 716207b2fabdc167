"""Tests of the order in which a pass makes the files and versions of a model visible."""

from pathlib import Path

import numpy as np
import pytest

from hsoftmax import exporter, models
from hsoftmax.stores.cache import Cache
from hsoftmax.stores.errors import StoreUnavailable
from hsoftmax.stores.mirror import Mirror
from hsoftmax.stores.objects import ObjectStore
from hsoftmax.stores.url import parse_url


class RolloutStore(ObjectStore):
    """A store that notes the visible versions when a rollout is read, or refuses to read it."""

    def __init__(self, folder: Path, cache: Cache) -> None:
        super().__init__(parse_url(f"file://{folder}"))
        self.is_away = False
        self.visible: list[set[str]] = []
        self._cache = cache

    def read(self, path: str, max_bytes: int) -> bytes:
        if path.endswith("rollout.json"):
            if self.is_away:
                raise StoreUnavailable(f"{path}: expected the store's answer, got none")
            self.visible.append(set(self._cache.linked()))
        return super().read(path, max_bytes)


def make(folder: Path, key: str) -> None:
    rng = np.random.default_rng(1)
    shapes = [(4, 2), (2,), (2, 4, 3), (2, 3)]
    model = models.from_theano(*(rng.normal(size=shape) for shape in shapes))
    exporter.export_model(model, exporter.parse_destination(folder / key))


@pytest.fixture
def cache(tmp_path) -> Cache:
    cache = Cache(tmp_path / "cache")
    cache.make()
    return cache


def test_a_version_appears_after_the_rollout_that_may_keep_it_out(tmp_path, cache):
    folder, now = tmp_path / "models", 0.0
    store = RolloutStore(folder, cache)
    mirror = Mirror(store, cache, 1 << 30, clock=lambda: now)
    make(folder, "words/1")
    make(folder, "other/1")
    (folder / "words" / "rollout.json").write_text('{"pin": 1}')
    store.is_away = True
    done = mirror.run()
    assert set(cache.linked()) == {"other/1"}
    assert list(done.refused) == list(mirror.failures) == ["words/rollout.json"]
    assert mirror.run().refused == {}  # it is said once
    store.is_away, now = False, 10.0
    mirror.run()
    assert set(cache.linked()) == {"other/1", "words/1"}
    assert store.visible == [{"other/1"}]
    assert cache.extras() == ["words/rollout.json"]
    assert mirror.failures == {}
