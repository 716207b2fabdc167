"""Checkpoints of PyTorch are read as data: PyTorch is not needed, and nothing in them runs.

The stored files were written by PyTorch. The others are put together here from the same parts.
"""

import collections
import io
import pickle  # noqa: TID251 - written here, to be read without it
import sys
import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from hsoftmax.exporter import SourceError, SourceOptions
from hsoftmax.exporter.sources import load
from hsoftmax.exporter.sources.tensor_files import read_tensors
from hsoftmax.models import WeightsError

from .saved_tensors import MODULES, NO_OPTIONS

DATA = Path(__file__).parent / "data"
KINDS = {"f8": "DoubleStorage", "f4": "FloatStorage", "f2": "HalfStorage", "i8": "LongStorage",
         "i4": "IntStorage", "i2": "ShortStorage", "i1": "CharStorage", "u1": "ByteStorage",
         "b1": "BoolStorage", "u2": "BFloat16Storage"}  # fmt: skip


@pytest.fixture(autouse=True)
def no_torch(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)


@pytest.mark.parametrize("name", ["bare", "nested", "bfloat16"])
def test_files_of_pytorch_give_the_tensors_of_safetensors(name):
    ours = load(DATA / f"pytorch_{name}.pt", "auto", NO_OPTIONS).model
    other = "bfloat16" if name == "bfloat16" else "upstream"
    expected = load(DATA / f"pytorch_{other}.safetensors", "pytorch", NO_OPTIONS).model
    for mine, theirs in zip(
        (ours.head, *ours.tails), (expected.head, *expected.tails), strict=True
    ):
        np.testing.assert_array_equal(mine.weight, theirs.weight)


def test_one_of_two_softmaxes_is_chosen_by_its_prefix():
    models = [load(DATA / "pytorch_twice.pt", "auto", SourceOptions(prefix=p)).model
              for p in ("one.", "two.")]  # fmt: skip
    assert [model.num_targets for model in models] == [models[0].num_targets] * 2


# --- checkpoints from their parts -----------------------------------------------------------------


class Stored:
    """A tensor that is pickled as PyTorch pickles its own."""

    def __init__(self, key, kind, length, size, stride, offset=0, rebuild="_rebuild_tensor_v2"):
        self.id = ("storage", Named("torch", kind), key, "cpu", length)
        self.arguments = (self, offset, size, stride, False, collections.OrderedDict())
        self.rebuild = rebuild


class Named:
    """A global name that is written but never imported."""

    def __init__(self, module, name):
        self.module, self.name = module, name


class Parameter:
    def __init__(self, tensor):
        self.tensor = tensor


class Pickler(pickle._Pickler):
    """Writes tensors, storages and names as `torch.save` does; Python's own looks up each name."""

    def save(self, value, save_persistent_id=True):
        if isinstance(value, Named):
            self.write(f"c{value.module}\n{value.name}\n".encode())
        elif isinstance(value, Stored):
            self.save(Named("torch._utils", value.rebuild))
            self.write(b"(")
            self.save(value.id)
            self.write(b"Q")
            for argument in value.arguments[1:]:
                self.save(argument)
            self.write(b"tR")
        elif isinstance(value, Parameter):
            self.save(Named("torch._utils", "_rebuild_parameter"))
            self.write(b"(")
            self.save(value.tensor)
            self.write(b"\x88}tR")
        else:
            super().save(value, save_persistent_id)


def checkpoint(tmp_path, content, storages, order=None, folder="archive", **options) -> Path:
    """Write a checkpoint of pickled content and the bytes of its storages."""
    sink = io.BytesIO()
    Pickler(sink, 2).dump(content)
    path = tmp_path / "model.pt"
    with zipfile.ZipFile(path, "w", **options) as archive:
        archive.writestr(f"{folder}/data.pkl", sink.getvalue())
        if order:
            archive.writestr(f"{folder}/byteorder", order)
        for key, data in storages.items():
            archive.writestr(f"{folder}/data/{key}", data)
    return path


def saved(tensors, order="<"):
    """Return content and storages of contiguous tensors."""
    content, storages = {}, {}
    for i, (name, array) in enumerate(tensors.items()):
        stride = tuple(s // array.itemsize for s in np.ascontiguousarray(array).strides)
        kind = KINDS[array.dtype.str[1:]]
        content[name] = Stored(str(i), kind, array.size, array.shape, stride)
        storages[str(i)] = array.astype(array.dtype.newbyteorder(order)).tobytes()
    return content, storages


def read(path) -> dict:
    return read_tensors(path, lambda _: True)


@pytest.mark.parametrize("order", ["little", "big"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_type_and_byte_order_is_read(tmp_path, kind, order):
    array = np.array([[0, 1, 2], [3, 100, 7]]).astype(kind)
    content, storages = saved({"a": array}, "<" if order == "little" else ">")
    actual = read(checkpoint(tmp_path, content, storages, order))["a"]
    expected = (array.astype(np.uint32) << 16).view(np.float32) if kind == "u2" else array
    np.testing.assert_array_equal(actual, expected)
    assert actual.dtype == np.float32 or kind not in {"f2", "f4", "f8", "u2"}


def test_views_of_one_storage_and_parameters_are_read(tmp_path):
    base = np.arange(24, dtype=np.float32)
    content = {
        "transposed": Stored("0", "FloatStorage", 24, (6, 4), (1, 6)),
        "part": Stored("0", "FloatStorage", 24, (2, 3), (6, 2), offset=1),
        "repeated": Stored("0", "FloatStorage", 24, (3, 2), (0, 1)),
        "number": Stored("0", "FloatStorage", 24, (), (), offset=5),
        "empty": Stored("0", "FloatStorage", 24, (0, 4), (4, 1)),
        "old": Stored("0", "FloatStorage", 24, (4,), (1,), rebuild="_rebuild_tensor"),
        "parameter": Parameter(Stored("0", "FloatStorage", 24, (24,), (1,))),
    }
    tensors = read(checkpoint(tmp_path, content, {"0": base.tobytes()}))
    np.testing.assert_array_equal(tensors["transposed"], base.reshape(4, 6).T)
    np.testing.assert_array_equal(tensors["part"], base.reshape(4, 6)[:2, 1:6:2])
    np.testing.assert_array_equal(tensors["repeated"], np.broadcast_to(base[:2], (3, 2)))
    assert tensors["number"] == 5
    assert tensors["empty"].shape == (0, 4)
    np.testing.assert_array_equal(tensors["parameter"], base)
    np.testing.assert_array_equal(tensors["old"], base[:4])


def test_ordered_and_nested_dictionaries_and_lists_give_names(tmp_path):
    content, storages = saved(dict(MODULES["pytorch"].tensors))
    nested = {"model": collections.OrderedDict(content), "epoch": 3,
              "optimizer": {"state": {0: {"step": 1}}, "param_groups": [{"lr": 0.1}]},
              "config": Named("omegaconf.dictconfig", "DictConfig")}  # fmt: skip
    path = checkpoint(tmp_path, nested, storages, folder="any name")
    model = load(path, "pytorch", NO_OPTIONS).model
    np.testing.assert_array_equal(
        model.head.weight, MODULES["pytorch"].tensors["lm.softmax.head.weight"]
    )


class Malicious:
    def __init__(self, witness):
        self.witness = witness

    def __reduce__(self):
        return (Path.touch, (self.witness,))


def test_other_objects_do_not_run_and_are_refused_with_the_softmax_alone(tmp_path):
    content, storages = saved(dict(MODULES["pytorch"].tensors))
    elsewhere = {**content, "callbacks": Malicious(tmp_path / "owned")}
    load(checkpoint(tmp_path, elsewhere, storages), "pytorch", NO_OPTIONS)
    beside = {**content, "lm.softmax.scale": Malicious(tmp_path / "owned")}
    with pytest.raises(SourceError, match=r"got lm.softmax.scale with them"):
        load(checkpoint(tmp_path, beside, storages), "pytorch", NO_OPTIONS)
    within = {**content, "lm.softmax.head.weight": Malicious(tmp_path / "owned")}
    with pytest.raises(SourceError, match=r"weight: expected a dense tensor, got [a-z_]+\.[a-z]+$"):
        load(checkpoint(tmp_path, within, storages), "pytorch", NO_OPTIONS)
    path = checkpoint(tmp_path, Malicious(tmp_path / "owned"), {})
    for source in ("pytorch", "auto"):
        with pytest.raises(SourceError, match=r"got [a-z_]+\.[a-z]+: save model.state_dict\(\) in"):
            load(path, source, NO_OPTIONS)
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"length": 23},
        {"offset": 1},
        {"offset": -1},
        {"stride": (6, -1)},
        {"stride": (2**62, 1)},
        {"size": (4, 7)},
        {"size": (4,)},
        {"size": [4, 6]},
        {"size": (4, True)},
        {"kind": "ComplexFloatStorage"},
        {"rebuild": "_rebuild_qtensor"},
        {"rebuild": "_rebuild_sparse_tensor"},
    ],
)
def test_a_tensor_that_its_storage_does_not_hold_is_one_line(tmp_path, changes):
    whole = {"key": "0", "kind": "FloatStorage", "length": 24, "size": (4, 6), "stride": (6, 1)}
    storages = {"0": np.zeros(24, np.float32).tobytes()}
    path = checkpoint(tmp_path, {"a": Stored(**whole)}, storages)
    assert read(path)["a"].shape == (4, 6)
    path = checkpoint(tmp_path, {"a": Stored(**{**whole, **changes})}, storages)
    with pytest.raises(SourceError, match=r"model.pt: a: expected a dense tensor, got torch._util"):
        read(path)


@pytest.mark.parametrize("storages", [{}, {"0": bytes(95)}, {"0": b""}, {"1": bytes(96)}])
def test_a_storage_that_is_missing_or_short_is_one_line(tmp_path, storages):
    content = {"a": Stored("0", "FloatStorage", 24, (4, 6), (6, 1))}
    with pytest.raises(SourceError, match=r"expected a whole PyTorch checkpoint, got one that is"):
        read(checkpoint(tmp_path, content, storages))


def test_the_name_of_a_storage_leads_nowhere_else(tmp_path):
    (tmp_path / "secret").write_bytes(bytes(96))
    content = {"a": Stored("../../secret", "FloatStorage", 24, (4, 6), (6, 1))}
    with pytest.raises(SourceError, match=r"expected a whole PyTorch checkpoint"):
        read(checkpoint(tmp_path, content, {}))


def test_storages_that_expand_and_tensors_that_repeat_are_bounded(tmp_path):
    content = {"a": Stored("0", "FloatStorage", 1 << 26, (1 << 26,), (1,))}
    options = {"compression": zipfile.ZIP_DEFLATED}
    path = checkpoint(tmp_path, content, {"0": bytes(1 << 28)}, **options)
    with pytest.raises(SourceError, match="bytes of numbers in a file of"):
        read(path)
    content = {"a": Stored("0", "FloatStorage", 1, (1 << 20, 1 << 20), (0, 0))}
    with pytest.raises(SourceError, match=r"a: expected at most \d+ bytes of numbers in a file"):
        read(checkpoint(tmp_path, content, {"0": bytes(4)}))


def test_a_checkpoint_cut_short_or_changed_anywhere_is_one_line(tmp_path):
    content, storages = saved(dict(MODULES["pytorch"].tensors))
    whole = checkpoint(tmp_path, content, storages).read_bytes()
    path, said = tmp_path / "changed.pt", set()
    for place in range(0, len(whole), 23):
        byte = bytes([whole[place] ^ 0xFF])
        for changed in (whole[:place], whole[:place] + byte + whole[place + 1 :]):
            path.write_bytes(changed)
            with suppress(SourceError, WeightsError):
                load(path, "pytorch", NO_OPTIONS)
                continue
            said.add(place)
    assert len(said) > len(whole) // 50
