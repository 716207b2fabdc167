"""Weights files made to hang, to crash or to fill the memory end with one line, and soon."""

import gzip
import io
import os
import re
import resource
import struct
import time
import zipfile
from contextlib import suppress
from pathlib import Path

import h5py
import numpy as np
import pytest

from hsoftmax.exporter import SourceError, SourceOptions
from hsoftmax.exporter.choices import SOURCE_NAMES
from hsoftmax.exporter.files.hdf5_probe import Hdf5Error, expect_readable
from hsoftmax.exporter.files.npy_files import map_npy
from hsoftmax.exporter.sources import (
    array_files,
    detect_source,
    fasttext,
    gensim,
    load,
    pickle_reader,
    theanolm,
)
from hsoftmax.exporter.sources.checkpoint import (
    _MAX_DEPTH,
    _count_names,
    expect_plain_pickles,
)
from hsoftmax.exporter.verification.precision_error import _map_hidden_file
from hsoftmax.models import UserError, WeightsError
from tests.exporter.conftest import theano_arrays
from tests.fuzz.npy_bombs import npy_bombs, npy_with_header
from tests.fuzz.weights_parsers import pickle_bombs

from .fasttext_files import FastTextFile

CHECKPOINTS = Path(__file__).parent / "data"
GIB = 1 << 30
MAX_SECONDS = 5


@pytest.fixture(autouse=True)
def bounded():
    """Fails a test that takes five seconds of processor time, or half a GiB of memory more."""
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    yield
    assert time.process_time() - start < MAX_SECONDS
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert (after - before) * 1024 < GIB // 2


def refused(path: Path, source: str) -> str:
    with pytest.raises((SourceError, WeightsError)) as caught:
        load(path, source, SourceOptions())
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600
    return str(caught.value)


def archive(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


def header(shape: tuple[int, ...]) -> bytes:
    return npy_with_header(f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}\n")


# --- regular files ------------------------------------------------------------------------------


@pytest.mark.parametrize("source", SOURCE_NAMES)
def test_a_pipe_is_refused_and_not_waited_for(tmp_path, source):
    os.mkfifo(tmp_path / "pipe")
    assert "expected a regular file, got a pipe" in refused(tmp_path / "pipe", source)
    with pytest.raises(SourceError, match="got a pipe"):
        detect_source(tmp_path / "pipe")


def test_a_device_is_refused():
    assert "expected a regular file, got a device" in refused(Path("/dev/zero"), "fasttext")


def test_a_pipe_beside_a_gensim_model_or_as_a_config_is_refused(tmp_path):
    os.mkfifo(tmp_path / "words.model.syn1.npy")
    with pytest.raises(SourceError, match="got a pipe"):
        gensim._read_extra_file(tmp_path / "words.model.syn1.npy")
    os.mkfifo(tmp_path / "hidden.npy")
    with pytest.raises(UserError, match="got a pipe"):
        _map_hidden_file(tmp_path / "hidden.npy")


def test_a_gzip_file_that_expands_without_measure_is_refused(tmp_path):
    pieces = gzip.compress(bytes(1 << 24)) * 64  # 1 GiB of zeros in one megabyte
    (tmp_path / "bomb.model.gz").write_bytes(pieces)
    message = refused(tmp_path / "bomb.model.gz", "gensim")
    assert re.search(r"gzip: expected at most \d+ bytes of numbers in a file of \d+ bytes", message)
    assert gensim.detect(tmp_path / "bomb.model.gz") is None


# --- arrays -------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", range(len(npy_bombs())))
def test_a_header_is_one_error_in_an_npz_and_in_a_file_of_its_own(tmp_path, number):
    content = npy_bombs()[number]
    members = {f"{name}.npy": content for name in ("W1", "b1", "W2", "b2")}
    refused(archive(tmp_path / "w.npz", members), "theano")
    (tmp_path / "x.npy").write_bytes(content)
    with suppress(SourceError):
        map_npy(tmp_path / "x.npy")


def test_a_shape_that_the_file_does_not_hold_is_refused_before_it_is_allocated(tmp_path):
    others = {f"{name}.npy": header((1,)) + bytes(4) for name in ("b1", "W2", "b2")}
    claim = archive(tmp_path / "claim.npz", {"W1.npy": header((8, 10**12)) + bytes(100), **others})
    assert "expected 32000000000" in refused(claim, "theano")
    zeros = header((8, 10_000_000)) + bytes(320_000_000)
    bomb = archive(tmp_path / "bomb.npz", {"W1.npy": zeros, **others})
    assert bomb.stat().st_size < 400_000
    assert "bytes of numbers in a file of" in refused(bomb, "theano")


def test_numbers_in_names_have_few_digits(tmp_path):
    one = header((1,)) + bytes(4)
    path = archive(tmp_path / "w.npz", {f"weight_{'9' * 5000}.npy": one, "bias_0.npy": one})
    refused(path, "levels")
    dots = archive(tmp_path / "w.npz", {"W1.npy": one, f"{'.' * 60_000}.npy": one})
    assert "names of at most 1000 characters, got 60000" in refused(dots, "theano")
    refused(dots, "auto")
    refused(archive(tmp_path / "w.npz", {f"x.tail.{'9' * 5000}.1.weight.npy": one}), "pytorch")


# --- pickles ------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", range(len(pickle_bombs(1))))
def test_a_small_pickle_makes_no_endless_work(tmp_path, number):
    path = tmp_path / "words.model"
    path.write_bytes(pickle_bombs(100_000)[number])
    refused(path, "gensim")
    with suppress(SourceError):
        detect_source(path)


def test_keys_that_are_not_plain_are_kept_without_being_hashed(tmp_path):
    (tmp_path / "p").write_bytes(b"\x80\x04}K\x01K\x02\x86K\x03s.")  # {(1, 2): 3}
    (key,) = pickle_reader.read_pickle(tmp_path / "p")
    assert key.content == (1, 2)


def test_a_checkpoint_that_contains_itself_has_a_bounded_number_of_names():
    loop: dict = {}
    loop.update({str(i): loop for i in range(1000)})
    assert _count_names(loop, _MAX_DEPTH, {}) > 10**15


@pytest.mark.parametrize("path", sorted(CHECKPOINTS.glob("*.pt")), ids=lambda path: path.stem)
def test_checkpoints_of_pytorch_are_plain(path):
    expect_plain_pickles(path)


@pytest.mark.parametrize("is_zip", [True, False])
def test_a_checkpoint_with_a_nested_key_never_reaches_pytorch(tmp_path, is_zip):
    laughs = b"\x80\x02}\x8c\x01x\x85" + b"2\x86" * 64 + b"Ns."
    path = archive(tmp_path / "m.pt", {"archive/data.pkl": laughs})
    if not is_zip:
        magic = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
        path.write_bytes(magic + b"\x80\x02M\xe9\x03." + b"\x80\x02}." + laughs)
    with pytest.raises(SourceError, match="it has a nested key"):
        expect_plain_pickles(path)


# --- fastText -----------------------------------------------------------------------------------


def test_a_quantised_matrix_is_decoded_only_if_its_shape_is_right(tmp_path):
    columns, rows = 1000, 1_000_000
    quantizer = struct.pack("<4i", columns, 1, 1, columns) + bytes(columns * 1024)

    def write(labels: dict[str, int]) -> Path:
        file = FastTextFile(dim=columns, labels=labels)
        matrices = [
            b"\1" + struct.pack("<?2qi", False, n, columns, n) + bytes(n) for n in (1, rows)
        ]
        content = [file.header(), file.dictionary(), matrices[0] + quantizer[:0]]
        content[2] = b"\1" + struct.pack("<?2qi", False, 1, columns, 1) + bytes(1) + quantizer
        path = tmp_path / "model.bin"
        path.write_bytes(b"".join([*content, matrices[1], quantizer]))
        return path

    two = {"__label__a": 5, "__label__b": 2}
    assert "expected [2, 1000], got [1000000, 1000]" in refused(write(two), "fasttext")


# --- HDF5 ---------------------------------------------------------------------------------------


def hdf5(path: Path, change) -> Path:
    with h5py.File(path, "w") as file:
        names = ("input/W", "input/b", "level1/W", "level1/b")
        for name, array in zip(names, theano_arrays(3, 2, 4).values(), strict=True):
            file[f"layers/output/{name}"] = array
        file["vocabulary/classes"] = np.arange(6)
        change(file)
    return path


def replace(file: h5py.File, make) -> None:
    del file["layers/output/input/W"]
    make("layers/output/input/W")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda f, n: f.create_dataset(n, (10**6, 10**6), "f4", chunks=(9, 9)), "bytes of numbers"),
        (lambda f, n: f.__setitem__(n, h5py.ExternalLink("other.h5", "/x")), "no link"),
        (lambda f, n: f.__setitem__(n, h5py.SoftLink("/layers/output/input/b")), "no link"),
        (lambda f, n: f.create_group(n), "damaged"),
    ],
)
def test_hdf5_that_claims_more_than_the_file_has_is_refused(tmp_path, make, message):
    path = hdf5(tmp_path / "m.h5", lambda f: replace(f, lambda name: make(f, name)))
    assert message in refused(path, "theanolm")


def test_hdf5_on_which_the_library_does_not_end_is_refused(tmp_path, monkeypatch):
    path = hdf5(tmp_path / "m.h5", lambda file: None)
    expect_readable(path, GIB)
    (tmp_path / "h5py.py").write_text("while True:\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(Hdf5Error, match="crashed or did not end"):
        expect_readable(path, GIB)


# --- errors behind the boundaries -----------------------------------------------------------------


def behind(tmp_path: Path) -> dict[str, tuple[Path, object, str]]:
    arrays = theano_arrays(3, 2, 4)
    np.savez(tmp_path / "w.npz", **arrays)
    sink = io.BytesIO()
    np.save(sink, np.zeros((2, 2)))
    (tmp_path / "p.model").write_bytes(b"\x80\x04cgensim.models.word2vec\nWord2Vec\n)\x81.")
    return {
        "theano": (tmp_path / "w.npz", array_files, "require_arrays"),
        "fasttext": (FastTextFile().write(tmp_path / "m.bin"), fasttext, "huffman_paths"),
        "gensim": (tmp_path / "p.model", gensim, "_attributes"),
        "theanolm": (hdf5(tmp_path / "m.h5", lambda file: None), theanolm, "_labels"),
    }


@pytest.mark.parametrize("error", [KeyError("planted"), struct.error("planted"), OSError("x")])
@pytest.mark.parametrize("source", ["theano", "fasttext", "gensim", "theanolm"])
def test_an_error_behind_a_boundary_is_not_the_files(tmp_path, monkeypatch, source, error):
    path, where, name = behind(tmp_path)[source]

    def broken(*_: object, **__: object) -> None:
        raise error

    if source == "theano":
        from hsoftmax.exporter.sources import theano as where
    monkeypatch.setattr(where, name, broken)
    with pytest.raises(type(error)) as caught:
        load(path, source, SourceOptions())
    assert caught.value is error
