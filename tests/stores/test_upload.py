"""Tests of uploads: a version appears whole or not at all, and is never replaced."""

import threading
from pathlib import Path

import pytest

from hsoftmax.stores.errors import StoreError, UrlError
from hsoftmax.stores.objects import ObjectStore
from hsoftmax.stores.upload import CLAIM, expect_new, upload_bundle
from hsoftmax.stores.url import StoreUrl, parse_url
from hsoftmax.stores.versions import list_versions

CONTENT = {"bundle.json": b"{}", "labels.txt": b"a\nb\n", "weights.bin": bytes(range(256))}


@pytest.fixture
def folder(tmp_path) -> Path:
    folder = tmp_path / "made"
    folder.mkdir()
    for name, content in CONTENT.items():
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture
def models(tmp_path) -> StoreUrl:
    return parse_url(f"file://{tmp_path}/models")


def visible(models: StoreUrl) -> list[str]:
    return [one.key for one in list_versions(ObjectStore(models)).versions]


def content(url: StoreUrl) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(f"/{url.path}").iterdir()}


def test_all_files_arrive_and_the_claim_goes(folder, models):
    upload_bundle(folder, models.join("words", "1"))
    assert content(models.join("words", "1")) == CONTENT
    assert visible(models) == ["words/1"]


def test_an_upload_that_fails_is_not_visible_and_the_next_one_completes_it(folder, models):
    url = models.join("words", "1")
    blocked = Path(f"/{url.path}/weights.bin/x")  # a folder, where the last file is to be
    blocked.mkdir(parents=True)
    with pytest.raises(StoreError, match=r"words/1/weights\.bin: expected"):
        upload_bundle(folder, url)
    assert visible(models) == []
    assert (Path(f"/{url.path}") / "labels.txt").is_file()
    blocked.rmdir()
    blocked.parent.rmdir()
    upload_bundle(folder, url)
    assert content(url) == CONTENT


def test_a_version_is_never_replaced(folder, models):
    expect_new(models.join("words", "1"), has_version=False)
    upload_bundle(folder, models.join("words", "1"))
    (folder / "weights.bin").write_bytes(b"others")
    with pytest.raises(StoreError, match="expected a new version, got one that exists"):
        upload_bundle(folder, models.join("words", "1"))
    assert content(models.join("words", "1")) == CONTENT
    for has_version in (True, False):
        with pytest.raises(UrlError, match=r"such as file:///.*/words/2, got one that exists"):
            expect_new(models.join("words", "1"), has_version=has_version)
    expect_new(models.join("words", "2"), has_version=True)
    expect_new(models.join("other", "1"), has_version=False)


def test_of_two_uploads_at_once_one_makes_the_version(folder, models):
    url, errors = models.join("words", "1"), []
    store = ObjectStore(parse_url(f"file://{folder.parent}"))
    store.write(f"models/words/1/{CLAIM}", b"")
    with pytest.raises(StoreError, match=f"got {CLAIM} in it: if that upload has ended, delete"):
        upload_bundle(folder, url)
    assert visible(models) == []
    store.delete([f"models/words/1/{CLAIM}"])

    def upload() -> None:
        try:
            upload_bundle(folder, url)
        except StoreError as error:
            errors.append(error)

    threads = [threading.Thread(target=upload) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(errors) == 3
    assert content(url) == CONTENT
