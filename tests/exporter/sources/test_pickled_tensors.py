"""Pickles of NumPy's arrays are read as data, of every protocol and of Python 2."""

import collections
import pickle  # noqa: TID251 - written here, to be read without it
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from hsoftmax import models
from hsoftmax.exporter import SourceError, SourceOptions, detect_source, export_file
from hsoftmax.exporter.sources import load
from hsoftmax.exporter.sources.tensor_files import read_tensors
from tests.exporter.conftest import theano_arrays

from .python2_pickles import python2_pickle
from .saved_tensors import NO_OPTIONS

ARRAYS = theano_arrays()
NAMES = tuple((name, f"arr_{i}") for i, name in enumerate(ARRAYS))
HIDDEN = np.random.default_rng(0).normal(size=(2, 6))
OPTIONS = SourceOptions(names=NAMES)


def log_probs(path, options=NO_OPTIONS, source="theano"):
    model = load(path, source, options).model
    return models.reference(model).log_probs(model, HIDDEN)


EXPECTED = models.hierarchical_softmax.log_probs(models.from_theano(**ARRAYS), HIDDEN)


def write(tmp_path, content: bytes) -> Path:
    (tmp_path / "params.pkl").write_bytes(content)
    return tmp_path / "params.pkl"


@pytest.mark.parametrize("protocol", [0, 1, 2])
@pytest.mark.parametrize("kind", [list, tuple, dict])
def test_a_pickle_of_python_2_is_read(tmp_path, protocol, kind):
    content = ARRAYS if kind is dict else kind(ARRAYS.values())
    path = write(tmp_path, python2_pickle(content, protocol))
    options = SourceOptions() if kind is dict else OPTIONS
    assert detect_source(path, options).source == "theano"
    np.testing.assert_array_equal(log_probs(path, options, "auto"), EXPECTED)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("kind", [list, tuple, dict, collections.OrderedDict])
def test_every_protocol_of_python_3_is_read(tmp_path, protocol, kind):
    is_list = kind in {list, tuple}
    content = kind(ARRAYS.values()) if is_list else kind(ARRAYS)
    path = write(tmp_path, pickle.dumps(content, protocol))
    options = OPTIONS if is_list else SourceOptions()
    np.testing.assert_array_equal(log_probs(path, options, "auto"), EXPECTED)


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_arrays_that_were_dumped_one_after_the_other_are_a_list(tmp_path, protocol):
    path = write(tmp_path, b"".join(pickle.dumps(a, protocol) for a in ARRAYS.values()))
    np.testing.assert_array_equal(log_probs(path, OPTIONS), EXPECTED)


def test_bytes_of_every_value_survive(tmp_path):
    array = np.arange(256, dtype=np.uint8)
    for protocol in (0, 1, 2):
        path = write(tmp_path, python2_pickle({"a": array}, protocol))
        np.testing.assert_array_equal(read_tensors(path, "a".__eq__)["a"], array)


def test_dictionaries_and_lists_give_names_and_prefixes(tmp_path, repository):
    content = {"model": {"softmax": ARRAYS, "layers": [np.ones(3), {"W": np.ones(2)}]}, "epoch": 7}
    path = write(tmp_path, pickle.dumps(content))
    names = []
    read_tensors(path, lambda name: bool(names.append(name)))
    assert names == [*(f"model.softmax.{name}" for name in ARRAYS),
                     "model.layers.arr_0", "model.layers.arr_1.W", "epoch"]  # fmt: skip
    with pytest.raises(SourceError, match=r"choose one with --prefix model.softmax\."):
        load(path, "theano", SourceOptions())
    options = SourceOptions(prefix="model.softmax.")
    exported = export_file(path, repository / "words", source="auto", options=options)
    assert exported.manifest.num_targets == 20


def test_numbers_beside_the_arrays_are_read_and_others_are_not_ignored(tmp_path):
    path = write(tmp_path, pickle.dumps({**ARRAYS, "n_outputs": 18, "n_classes": np.int64(5)}))
    assert load(path, "auto", SourceOptions()).model.num_targets == 18
    path = write(tmp_path, pickle.dumps({**ARRAYS, "temperature": 2.0}))
    with pytest.raises(SourceError, match="softmax has, got temperature with them"):
        load(path, "theano", SourceOptions())


# --- objects of libraries -------------------------------------------------------------------------


def fake_class(monkeypatch, name: str, module: str) -> type:
    """Return a class that pickles name as one of a library that is not installed."""
    cls = type(name, (), {"__module__": module})
    setattr(fake_module(monkeypatch, module), name, cls)
    return cls


def fake_module(monkeypatch, name: str) -> ModuleType:
    """Return a module that can be imported, as can the packages in which it lies."""
    parent = name.rpartition(".")[0]
    if parent:
        fake_module(monkeypatch, parent)
    monkeypatch.setitem(sys.modules, name, sys.modules.get(name) or ModuleType(name))
    return sys.modules[name]


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_shared_variables_of_theano_hold_arrays(tmp_path, monkeypatch, protocol):
    variable = fake_class(monkeypatch, "TensorSharedVariable", "theano.tensor.sharedvar")
    container = fake_class(monkeypatch, "Container", "theano.gof.link")
    shared = []
    for name, array in ARRAYS.items():
        one, inner = variable(), container()
        inner.__dict__.update(storage=[array], readonly=False, name=name)
        one.__dict__.update(container=inner, name=name, auto_name="auto_1")
        shared.append(one)
    path = write(tmp_path, pickle.dumps(shared, protocol))
    np.testing.assert_array_equal(log_probs(path, OPTIONS), EXPECTED)


def test_arrays_of_a_gpu_hold_arrays(tmp_path, monkeypatch):
    module = fake_module(monkeypatch, "theano.sandbox.cuda.type")

    def CudaNdarray_unpickler(array):
        raise AssertionError("called")

    CudaNdarray_unpickler.__module__ = module.__name__
    CudaNdarray_unpickler.__qualname__ = "CudaNdarray_unpickler"
    module.CudaNdarray_unpickler = CudaNdarray_unpickler

    class OnGpu:
        def __init__(self, array):
            self.array = array

        def __reduce__(self):
            return module.CudaNdarray_unpickler, (self.array,)

    path = write(tmp_path, pickle.dumps([OnGpu(array) for array in ARRAYS.values()], 2))
    np.testing.assert_array_equal(log_probs(path, OPTIONS), EXPECTED)


class Malicious:
    def __init__(self, witness):
        self.witness = witness

    def __reduce__(self):
        return (Path.write_text, (self.witness, "ran"))


def test_nothing_in_the_file_runs(tmp_path):
    witness = tmp_path / "witness"
    path = write(tmp_path, pickle.dumps({**ARRAYS, "extra": Malicious(witness)}))
    with pytest.raises(SourceError, match="softmax has, got extra with them"):
        load(path, "auto", SourceOptions())
    path = write(tmp_path, pickle.dumps({**ARRAYS, "b1": Malicious(witness)}))
    with pytest.raises(SourceError, match=r"params.pkl: b1: expected an array, got pathlib"):
        load(path, "auto", SourceOptions())
    assert not witness.exists()


# --- damaged and hostile files --------------------------------------------------------------------


@pytest.mark.parametrize("protocol", [0, 1, 2])
def test_a_pickle_cut_short_anywhere_is_one_line(tmp_path, protocol):
    content = python2_pickle(ARRAYS, protocol)
    for keep in range(1, len(content), 61):
        path = write(tmp_path, content[:keep])
        with pytest.raises(SourceError, match=r"params.pkl: expected") as raised:
            load(path, "theano", SourceOptions())
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x80\x02(S'a\nl.", r"expected a whole pickle: it has a string without quotes"),
        (pickle.dumps(ARRAYS) + b"?", r"expected a whole pickle: b'\?' is no instruction"),
        (pickle.dumps({"W1": np.array([None])}), r"W1: expected an array of numbers"),
        (pickle.dumps({"W1": "text"}), r"W1: expected an array, got a str"),
        (pickle.dumps({"W1": [1.5, 2]}), r"got no W1"),
    ],
)
def test_other_content_is_one_line(tmp_path, content, message):
    with pytest.raises(SourceError, match=message) as raised:
        load(write(tmp_path, content), "theano", SourceOptions())
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("text", ["(a) parenthesis.", "{}.", "]", "count\n.", "(", "c."])
def test_text_is_no_pickle(tmp_path, text):
    with pytest.raises(SourceError, match="got an unknown file"):
        detect_source(write(tmp_path, text.encode()))


def test_an_array_that_is_named_without_end_is_refused(tmp_path):
    array = np.zeros(1 << 20)
    path = write(tmp_path, pickle.dumps({f"weight_{i}": array for i in range(3000)}))
    with pytest.raises(SourceError, match="bytes of numbers in a file of"):
        load(path, "levels", SourceOptions())


def test_a_container_that_contains_itself_is_refused(tmp_path):
    loop: dict = {}
    loop.update({str(i): loop for i in range(200)})
    with pytest.raises(SourceError, match="expected at most 1000000 tensors, got more"):
        load(write(tmp_path, pickle.dumps(loop)), "theano", SourceOptions())
