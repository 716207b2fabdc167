"""A version whose files are links is served, and loaded again when what they lead to changes."""

import shutil
import time
from pathlib import Path

import pytest

from hsoftmax.service.repository.directory import stat_version
from tests.service.conftest import HIDDEN, serving

QUERY = {"inputs": [[0.5] * HIDDEN], "targets": [1]}
ASK = "/v1/models/words/probabilities"


def mount(version: Path, content: Path, name: str) -> None:
    """The content as a volume shows it: links through `..data`, which one rename replaces."""
    shutil.copytree(content, version / name)
    (version / "new").symlink_to(name)
    (version / "new").rename(version / "..data")
    for file in content.iterdir():
        if not (version / file.name).is_symlink():
            (version / file.name).symlink_to(f"..data/{file.name}")


@pytest.fixture
def version(tmp_path) -> Path:
    path = tmp_path / "mounted" / "words" / "1"
    path.mkdir(parents=True)
    return path


def test_a_version_of_links_answers_as_its_files_do(client, repository, version):
    mount(version, repository / "words" / "2", "..first")
    with serving(version.parents[1], watch=False) as linked:
        got, wanted = (one.post(ASK, json=QUERY) for one in (linked, client))
        assert got.status_code == 200, got.text
        assert got.json()["probabilities"] == wanted.json()["probabilities"]


def test_a_volume_that_changes_is_loaded_again(client, repository, version):
    mount(version, repository / "words" / "1", "..first")
    with serving(version.parents[1]) as linked:
        before = linked.get("/v1/models/words").json()["digest"]
        mount(version, repository / "words" / "2", "..second")
        give_up = time.monotonic() + 20
        while linked.get("/v1/models/words").json()["digest"] == before:
            assert time.monotonic() < give_up
            time.sleep(0.05)
        wanted = client.post(ASK, json=QUERY).json()["probabilities"]
        assert linked.post(ASK, json=QUERY).json()["probabilities"] == wanted


def test_a_link_whose_target_is_replaced_is_a_change(version, tmp_path):
    target, other = tmp_path / "target", tmp_path / "other"
    target.write_text("before")
    (version / "labels.txt").symlink_to(target)
    before = stat_version("words", 1, version)
    assert stat_version("words", 1, version) == before
    other.write_text("behind")
    other.rename(target)
    assert stat_version("words", 1, version) != before


def test_a_link_to_nothing_hides_no_other_file(version):
    (version / "bundle.json").write_text("{}")
    before = stat_version("words", 1, version)
    (version / "labels.txt").symlink_to("gone")
    after = stat_version("words", 1, version)
    assert [name for name, *_ in after.files] == ["bundle.json", "labels.txt"]
    assert after.files[0] == before.files[0]
