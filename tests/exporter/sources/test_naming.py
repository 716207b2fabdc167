"""One of several softmaxes in a file is chosen by --prefix; --names gives arrays their names."""

from dataclasses import replace

import h5py
import numpy as np
import pytest
from safetensors.numpy import save_file

from hsoftmax import bundle, models
from hsoftmax.cli import run
from hsoftmax.exporter import SourceError, SourceOptions, detect_source
from hsoftmax.exporter.choices import SOURCE_NAMES
from hsoftmax.exporter.sources import load
from hsoftmax.exporter.sources.naming import show_names
from hsoftmax.models import UserError
from tests.exporter.conftest import theano_arrays

from .saved_tensors import ARRAYS, MODULES, NO_OPTIONS, write_npz
from .test_levels import theanolm

FIRST, SECOND = theano_arrays(), theano_arrays(seed=1)
HIDDEN = np.random.default_rng(0).normal(size=(2, 6))
ORDER = ("W1", "b1", "W2", "b2")
POSITIONS = ",".join(f"{name}=arr_{i}" for i, name in enumerate(ORDER))


def log_probs(path, source="theano", **options):
    model = load(path, source, SourceOptions(**options)).model
    return models.reference(model).log_probs(model, HIDDEN)


def expected(arrays):
    return models.hierarchical_softmax.log_probs(models.from_theano(**arrays), HIDDEN)


def prefixed(prefix: str, arrays) -> dict:
    return {f"{prefix}{name}": array for name, array in arrays.items()}


# --- prefix ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("before", ["words.", "model/words_", "words_"])
def test_a_prefix_chooses_among_plain_arrays(tmp_path, before):
    both = {**prefixed(before, FIRST), **prefixed("tags.", SECOND), "embedding": np.ones(3)}
    path = write_npz(tmp_path, both)
    np.testing.assert_array_equal(log_probs(path, prefix=before), expected(FIRST))
    np.testing.assert_array_equal(log_probs(path, "auto", prefix="tags."), expected(SECOND))
    with pytest.raises(SourceError, match=rf"got no W1, .*: choose one with --prefix .*{before}"):
        load(path, "theano", NO_OPTIONS)
    with pytest.raises(SourceError, match=r"got npz with .*: choose one with --prefix .*tags\."):
        load(path, "auto", NO_OPTIONS)


def test_what_stands_under_the_prefix_is_never_ignored(tmp_path):
    path = write_npz(tmp_path, prefixed("a.", FIRST | {"scale": np.ones(4)}))
    with pytest.raises(SourceError, match=r"softmax has, got scale with them"):
        log_probs(path, prefix="a.")


def test_a_prefix_that_no_name_has_is_refused_with_the_names(tmp_path):
    path = write_npz(tmp_path, prefixed("a.", FIRST))
    with pytest.raises(SourceError, match=r"--prefix: expected names that begin with 'b\.', got a"):
        log_probs(path, prefix="b.")


@pytest.mark.parametrize("source", ["pytorch", "transformer-xl", "fairseq"])
def test_a_prefix_chooses_among_the_softmaxes_of_a_module(tmp_path, source):
    case = next(case for case in MODULES if case.startswith(source))
    saved, rng = MODULES[case], np.random.default_rng(5)
    own = {name: t for name, t in saved.tensors.items() if name not in saved.harmless}
    own |= {name: t for name, t in saved.tensors.items() if name.endswith("version")}
    other = {n: rng.normal(size=t.shape).astype(t.dtype) if t.dtype == np.float32 else t
             for n, t in own.items()}  # fmt: skip
    for name, tensors in (("own", own), ("other", other), ("both", own | prefixed("ema.", other))):
        save_file({n: np.ascontiguousarray(t) for n, t in tensors.items()}, tmp_path / name)
    options = {"cutoffs": saved.options.cutoffs}
    before = next(iter(own)).split("head.")[0].split("cluster_")[0]
    alone, others = (log_probs(tmp_path / name, source, **options) for name in ("own", "other"))
    both = tmp_path / "both"
    for prefix in (before, before.rstrip(".")):
        np.testing.assert_array_equal(log_probs(both, source, prefix=prefix, **options), alone)
    ema = log_probs(both, source, prefix=f"ema.{before}", **options)
    np.testing.assert_array_equal(ema, others)
    with pytest.raises(SourceError, match=rf"got .*'ema.{before}'.*: choose one with --prefix"):
        log_probs(both, source, **options)
    with pytest.raises(SourceError, match=rf"--prefix: expected .*'ema.{before}'.*, got 'x'"):
        log_probs(both, source, prefix="x", **options)


def test_a_softmax_at_the_top_of_a_file_is_chosen_by_an_empty_prefix(tmp_path):
    tensors = {name.removeprefix("lm.softmax."): tensor
               for name, tensor in MODULES["pytorch"].tensors.items()
               if name.startswith("lm.")}  # fmt: skip
    del tensors["lm.encoder.weight"]
    save_file(tensors | prefixed("ema.", tensors), tmp_path / "model")
    log_probs(tmp_path / "model", "pytorch", prefix="")
    save_file(tensors | prefixed("ema.", tensors) | {"scale": np.ones(1)}, tmp_path / "model")
    with pytest.raises(SourceError, match="got scale with them"):
        log_probs(tmp_path / "model", "pytorch", prefix="")


def test_a_prefix_chooses_among_the_layers_of_theanolm(tmp_path):
    path, _ = theanolm(tmp_path / "model.h5", layer="words")
    other, _ = theanolm(tmp_path / "other.h5")
    with h5py.File(path, "a") as file, h5py.File(other) as more:
        more.copy("layers/output_layer", file["layers"], name="tags")
        file["layers/tags/input/b"][...] = 1
    with pytest.raises(SourceError, match=r"got layers tags, words: choose one with --prefix"):
        load(path, "theanolm", NO_OPTIONS)
    loaded = [load(path, "theanolm", SourceOptions(prefix=prefix)).model
              for prefix in ("layers/words/", "words", "tags")]  # fmt: skip
    biases = [model.levels[0].bias.tolist() for model in loaded]
    assert biases[0] == biases[1] != biases[2] == [1, 1, 1, 1]


@pytest.mark.parametrize("options", [{"prefix": ""}, {"names": (("syn1", "x"),)}])
@pytest.mark.parametrize("source", ["gensim", "fasttext"])
def test_formats_without_names_take_no_option_for_names(tmp_path, source, options):
    (tmp_path / "model").write_bytes(b"\x80\x04N.")
    with pytest.raises(SourceError, match=rf"expected no --prefix and no --names for {source}"):
        load(tmp_path / "model", source, SourceOptions(**options))


# --- names ----------------------------------------------------------------------------------------


def test_names_give_arrays_the_names_of_the_format(tmp_path):
    renamed = {"softmax_w": FIRST["W1"], **{k: v for k, v in FIRST.items() if k != "W1"}}
    path = write_npz(tmp_path, renamed)
    names = (("W1", "softmax_w"),)
    assert detect_source(path, SourceOptions(names=names)).source == "theano"
    np.testing.assert_array_equal(log_probs(path, "auto", names=names), expected(FIRST))


def test_a_name_in_the_file_counts_with_any_prefix(tmp_path):
    arrays = prefixed("a.", FIRST) | {"shared": SECOND["b1"]}
    del arrays["a.b1"]
    path = write_npz(tmp_path, arrays)
    actual = log_probs(path, prefix="a.", names=(("b1", "shared"),))
    np.testing.assert_array_equal(actual, expected(FIRST | {"b1": SECOND["b1"]}))


def test_tensors_of_a_module_are_named_by_their_whole_names(tmp_path):
    saved = MODULES["pytorch"]
    tensors = dict(saved.tensors)
    tensors["lm.projection"] = tensors.pop("lm.softmax.head.weight")
    save_file(tensors, tmp_path / "model")
    save_file(dict(saved.tensors), tmp_path / "original")
    names = (("lm.softmax.head.weight", "lm.projection"),)
    np.testing.assert_array_equal(
        log_probs(tmp_path / "model", "pytorch", names=names),
        log_probs(tmp_path / "original", "pytorch"),
    )


def test_arrays_without_names_are_refused_with_the_option_that_names_them(tmp_path):
    np.savez(tmp_path / "weights.npz", *SECOND.values())
    for source in ("theano", "auto"):
        with pytest.raises(SourceError, match=r"say which array is which with --names, such as"):
            load(tmp_path / "weights.npz", source, NO_OPTIONS)


def test_arrays_without_names_are_given_theirs_and_the_rest_of_the_model_is_elsewhere(
    tmp_path, repository, capsys
):
    path = tmp_path / "weights.npz"
    np.savez(path, *FIRST.values(), np.ones((9, 6)))
    arguments = ["export", str(path), "--names", POSITIONS, "--to", str(repository / "words")]
    assert run(arguments) == 0
    assert "(--from theano)" in capsys.readouterr().out
    names = tuple((name, f"arr_{i}") for i, name in enumerate(ORDER))
    np.testing.assert_array_equal(log_probs(path, names=names), expected(FIRST))
    tensors = bundle.load_tensors(bundle.open_bundle(repository / "words" / "1"))
    np.testing.assert_array_equal(tensors["level0.bias"], FIRST["b1"])


@pytest.mark.parametrize(
    ("extra", "names", "message"),
    [
        ({}, (("W1", "gone"),), r"--names: expected a tensor gone, got W1, W2, b1, b2"),
        ({"w": np.ones(3)}, (("W1", "w"),), r"expected one W1, got (W1 and w|w and W1)"),
        ({"w": np.ones(3)}, (("x", "w"),), r"softmax has, got x with them"),
    ],
)
def test_names_that_do_not_fit_the_file_are_refused(tmp_path, extra, names, message):
    with pytest.raises(SourceError, match=message):
        log_probs(write_npz(tmp_path, FIRST | extra), names=names)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("W1", "expected NAME=IN_FILE"),
        ("W1=", "expected NAME=IN_FILE"),
        ("W1=a,W1=b", "expected each name once"),
        ("W1=a,b1=a", "expected each name once"),
    ],
)
def test_pairs_of_names_that_are_none_are_a_wrong_call(weights, repository, capsys, value, message):
    arguments = ["export", str(weights), "--names", value, "--to", str(repository / "w")]
    assert run(arguments) == 2
    assert message in capsys.readouterr().err


def test_every_source_of_arrays_takes_a_prefix(tmp_path):
    for saved in ARRAYS.values():
        path = write_npz(tmp_path, prefixed("a.", saved.tensors) | prefixed("b.", saved.tensors))
        assert detect_source(path, SourceOptions(prefix="b.")).source == saved.source
        load(path, saved.source, replace(saved.options, prefix="a."))


@pytest.mark.parametrize("name", ARRAYS)
def test_the_source_that_the_content_speaks_for_is_named_for_a_wrong_one(tmp_path, name):
    saved = ARRAYS[name]
    path = write_npz(tmp_path, saved.tensors)
    for source in set(SOURCE_NAMES) - {saved.source}:
        with pytest.raises(UserError) as raised:
            load(path, source, NO_OPTIONS)
        assert str(raised.value).endswith(f": say --from {saved.source}"), source


@pytest.mark.parametrize(
    ("right", "wrong"), [("parent", "parents"), ("weight", "weights"), ("bias", "Bias")]
)
@pytest.mark.parametrize("source", ["tree", "auto"])
def test_a_name_close_to_the_formats_is_to_be_given(tmp_path, right, wrong, source):
    tensors = {"weight": np.ones((3, 2)), "bias": np.ones(3), "parent": np.array([-1, 0, 0])}
    tensors[wrong] = tensors.pop(right)
    path = write_npz(tmp_path, tensors)
    with pytest.raises(SourceError, match=f": say --names {right}={wrong} if that is what they"):
        load(path, source, NO_OPTIONS)
    load(path, "tree", SourceOptions(names=((right, wrong),)))


def test_a_message_shows_a_few_names_and_counts_the_rest():
    names = [f"array{i:03}" for i in range(100)]
    shown = next(i for i in range(1, 100) if "more" in show_names(names[: i + 1]))
    assert show_names(names[:shown]) == ", ".join(names[:shown])
    assert show_names(names) == ", ".join(names[:shown]) + f" and {100 - shown} more"
    assert show_names([]) == "none"
