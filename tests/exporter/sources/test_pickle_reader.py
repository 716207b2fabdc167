"""Tests that a pickle is read as data and has no effect."""

import collections
import datetime
import pickle  # noqa: TID251 - written here, to be read without it
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from hsoftmax.exporter import SourceError
from hsoftmax.exporter.sources.pickle_machine import PickledCall, PickledGlobal
from hsoftmax.exporter.sources.pickle_reader import first_global, read_pickle
from hsoftmax.exporter.sources.pickled_arrays import numbers, objects

PROTOCOLS = range(6)


class Plain:
    def __init__(self):
        self.numbers, self.name = [1, 2, 3], "plain"


class Malicious:
    """Writes a file when it is unpickled."""

    def __init__(self, witness: Path):
        self.witness = witness

    def __reduce__(self):
        return (Path.write_text, (self.witness, "ran"))


def write_file(path, value, protocol=4):
    path.write_bytes(pickle.dumps(value, protocol=protocol))
    return path


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_plain_data_is_read_as_pickle_reads_it(tmp_path, protocol):
    value = {
        "list": [1, -2, 2**70, 1.5, None, True, False, "a\nb", "ü", [[]]],
        "tuples": ((), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)),
        "dict": {1: {"x": 0.1}, "y": {}},
        "long": "x" * 300,
    }
    value["twice"] = value["list"]
    assert read_pickle(write_file(tmp_path / "p", value, protocol)) == value


def test_a_dictionary_in_one_instruction_is_read(tmp_path):
    """CPython writes dictionaries in another way; other programs use DICT."""
    (tmp_path / "p").write_bytes(b"(I1\nI2\nI3\nI4\nI5\nI6\nd.")
    assert read_pickle(tmp_path / "p") == {1: 2, 3: 4, 5: 6}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_object_is_a_call_with_its_state(tmp_path, protocol):
    data = read_pickle(write_file(tmp_path / "p", Plain(), protocol))
    assert isinstance(data, PickledCall)
    assert data.state == {"numbers": [1, 2, 3], "name": "plain"}
    assert first_global(tmp_path / "p") is None or protocol >= 2


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", "<i8", "<u4", "|u1", "|b1"])
def test_arrays_of_numbers_are_read_in_every_protocol(tmp_path, protocol, dtype):
    for array in (
        np.arange(6).astype(dtype).reshape(2, 3),
        np.asfortranarray(np.arange(6).astype(dtype).reshape(2, 3)),
        np.empty((0, 4), dtype=dtype),
    ):
        actual = numbers("x", read_pickle(write_file(tmp_path / "p", array, protocol)))
        np.testing.assert_array_equal(actual, array)
        assert actual.dtype == array.dtype.newbyteorder("=")


def test_arrays_of_objects_are_read_item_by_item(tmp_path):
    array = np.empty(3, dtype=object)
    array[:] = [np.arange(2), np.arange(3), np.arange(0)]
    items = objects("x", read_pickle(write_file(tmp_path / "p", array)))
    assert [numbers("x", item).tolist() for item in items] == [[0, 1], [0, 1, 2], []]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_no_object_of_a_pickle_is_created(tmp_path, protocol):
    witness = tmp_path / "witness"
    data = read_pickle(write_file(tmp_path / "p", [Malicious(witness)], protocol))
    assert isinstance(data[0], PickledCall)
    assert not witness.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"cos\nsystem\n(S'touch witness'\ntR.",
        b"(S'touch witness'\nios\nsystem\n.",
        b"(cos\nsystem\nS'touch witness'\no.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x0dtouch witness\x85R.",
        b"\x80\x02cbuiltins\nexec\nX\x05\x00\x00\x00a = 1\x85\x81.",
    ],
)
def test_no_call_instruction_calls_a_function(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p").write_bytes(content)
    data = read_pickle(tmp_path / "p")
    assert isinstance(data, PickledCall)
    assert isinstance(data.function, PickledGlobal)
    assert [p.name for p in tmp_path.iterdir()] == ["p"]


def test_other_objects_become_calls_with_their_content(tmp_path):
    value = {
        "ordered": collections.OrderedDict(a=1),
        "default": collections.defaultdict(list, b=[2]),
        "when": datetime.date(2020, 1, 2),
        "set": {1, 2},
    }
    data = read_pickle(write_file(tmp_path / "p", value))
    assert data["ordered"].entries == {"a": 1}
    assert data["default"].entries == {"b": [2]}
    assert data["when"].function == PickledGlobal("datetime", "date")
    assert data["set"] == {1, 2}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_pickle_cut_short_anywhere_is_refused(tmp_path, protocol):
    content = pickle.dumps({"a": [1, "two", np.arange(3)], "b": Plain()}, protocol=protocol)
    for keep in range(len(content)):
        (tmp_path / "p").write_bytes(content[:keep])
        with pytest.raises(SourceError, match=r"^p: expected a whole pickle|empty"):
            read_pickle(tmp_path / "p")


def test_damaged_pickles_give_data_or_one_error(tmp_path):
    content = bytearray(pickle.dumps({"a": [1, "two", np.arange(3)], "b": Plain()}, protocol=4))
    rng = np.random.default_rng(0)
    for at in range(len(content)):
        for value in {0xFF, 0x00, 0x7F, int(rng.integers(256))}:
            write_changed_copy = content.copy()
            write_changed_copy[at] = value
            (tmp_path / "p").write_bytes(write_changed_copy)
            with suppress(SourceError):
                read_pickle(tmp_path / "p")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x80\x02\x8b\xff\xff\xff\x7fx.", r"expected a whole pickle"),
        (b"\x80\x04\x96\xff\xff\xff\xff\xff\xff\xff\x0fx.", r"expected a whole pickle"),
        (b"\x80\x02U\x03abcQ.", r"it asks for BINPERSID, which lies outside the file"),
        (b"\x80\x02\x82\x01.", r"it asks for EXT1, which lies outside the file"),
        (b"\x80\x02]}a", r"expected a whole pickle"),
        (b"\x80\x02].junk that follows", None),
        (b"", r"expected a whole pickle"),
        (b"\x80\x02}]K\x01s.", r"expected a whole pickle: .*unhashable"),
    ],
)
def test_instructions_that_need_more_than_the_file_are_refused(tmp_path, content, message):
    (tmp_path / "p").write_bytes(content)
    if message is None:
        assert read_pickle(tmp_path / "p") == []
        return
    with pytest.raises(SourceError, match=message):
        read_pickle(tmp_path / "p")


@pytest.mark.parametrize(
    ("array", "change", "message"),
    [
        (np.arange(4), lambda m: setattr(m, "state", (1, (5,), *m.state[2:])), r"\[5\] int64"),
        (np.arange(4), lambda m: setattr(m, "state", (1, (-4,), *m.state[2:])), r"the shape of an"),
        (np.arange(4), lambda m: setattr(m, "state", None), r"x: expected an array, got numpy"),
        (np.array(["a"]), lambda m: None, r"x: expected an array of numbers, got one of something"),
        (np.zeros(2, "f4,f4"), lambda m: None, r"x: expected an array of numbers"),
    ],
)
def test_arrays_whose_parts_do_not_fit_are_refused(tmp_path, array, change, message):
    data = read_pickle(write_file(tmp_path / "p", array))
    change(data)
    with pytest.raises(SourceError, match=message):
        numbers("x", data)
