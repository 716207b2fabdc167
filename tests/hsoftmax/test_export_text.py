"""`hsoftmax export`, `inspect` and `verify` say that a bundle takes text, or why it does not."""

import re

import pytest
from gensim.models import Doc2Vec
from gensim.models.doc2vec import TaggedDocument

from hsoftmax.cli import run
from tests.exporter.sources.test_fasttext import real_model


@pytest.fixture
def ask(capsys):
    def ask(*arguments, expect=0):
        capsys.readouterr()
        code = run([str(argument) for argument in arguments])
        said = capsys.readouterr()
        assert code == expect, said.err
        return said.out

    return ask


def test_a_bundle_with_text_says_so(ask, tmp_path):
    said = ask("export", real_model(), "--to", tmp_path / "repository" / "lid")
    assert "takes text too" in said
    path = tmp_path / "repository" / "lid"
    assert re.search(r"^text +featurizer.json", ask("inspect", path), re.MULTILINE)
    assert "ok   text, 7,411 words" in ask("verify", path)


def test_a_head_alone_is_exported_on_demand(ask, tmp_path):
    path = tmp_path / "repository" / "lid"
    assert "takes text" not in ask("export", real_model(), "--to", path, "--no-text")
    assert "featurizer" not in ask("inspect", path)


def test_a_model_without_text_says_why(ask, tmp_path):
    documents = [TaggedDocument(["a", "b", "c"], [i]) for i in range(9)]
    model = Doc2Vec(documents, hs=1, negative=0, dm_concat=1, vector_size=4, min_count=1, workers=1)
    model.save(str(tmp_path / "some.model"))
    said = ask("export", tmp_path / "some.model", "--to", tmp_path / "repository" / "some")
    assert "without text: Doc2Vec with dm_concat=1 joins vectors of fixed places" in said
