"""`hsoftmax export --to s3://…` and `az://…` with real servers."""

import numpy as np
import pytest

from hsoftmax.cli import run
from hsoftmax.stores.objects import ObjectStore
from hsoftmax.stores.upload import CLAIM
from hsoftmax.stores.url import parse_url
from hsoftmax.stores.versions import list_versions
from tests.service.conftest import HIDDEN

from .conftest import serve, served
from .fault_proxy import FaultProxy, refuse

pytestmark = pytest.mark.stores


@pytest.fixture
def weights(tmp_path) -> str:
    rng = np.random.default_rng(0)
    shapes = {"W1": (HIDDEN, 5), "b1": (5,), "W2": (5, HIDDEN, 40_000), "b2": (5, 40_000)}
    arrays = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    np.savez(tmp_path / "weights.npz", **arrays)  # 6.4 MB: an upload in several parts
    return str(tmp_path / "weights.npz")


def paths(url: str) -> set[str]:
    return {one.path for one in ObjectStore(parse_url(url)).list_objects()}


def test_a_version_is_exported_once_and_served(server, start, weights, tmp_path, capsys):
    url = f"{server.url}/words"
    assert run(["export", weights, "--from", "theano", "--to", url]) == 0
    assert capsys.readouterr().out.splitlines()[0] == f"{url}/1"
    assert f"1/{CLAIM}" not in paths(url)
    for to in (url, f"{url}/1"):
        assert run(["export", weights, "--from", "theano", "--to", to]) == 2
        error = capsys.readouterr().err
        assert f"such as {url}/2, got one that exists" in error
        assert error.count("\n") == 1
    assert served(serve(start, server.url, tmp_path / "cache")) == ["1"]


@pytest.mark.parametrize("about", ["weights.bin", "bundle.json"])
def test_an_export_that_the_store_refuses_is_not_visible(
    s3, weights, tmp_path, capsys, monkeypatch, about
):
    url = f"{s3.url}/words"
    proxy = FaultProxy(s3.port)
    try:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.port}")
        proxy.spoil(about, refuse(b"403 Forbidden", b"ExpiredToken"), before=True)
        assert run(["export", weights, "--from", "theano", "--to", url]) == 1
        error = capsys.readouterr().err
        assert "expected valid credentials, got ExpiredToken" in error
        assert error.count("\n") == 1
        assert list_versions(ObjectStore(parse_url(s3.url))).versions == ()
        proxy.heal()
        assert run(["export", weights, "--from", "theano", "--to", url]) == 0
        assert len(list_versions(ObjectStore(parse_url(s3.url))).versions) == 1
    finally:
        proxy.close()


@pytest.mark.parametrize(
    ("to", "sentence"),
    [("s3://buckett/models/words", "s3://buckett/models/words: expected it in the store, got none"),
     ("s4://bucket/models/words", "did you mean s3://?")],
)  # fmt: skip
def test_a_wrong_address_is_one_line_before_the_export(s3, weights, capsys, to, sentence):
    assert run(["export", weights, "--to", to]) != 0
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1
