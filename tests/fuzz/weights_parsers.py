"""Parsers of weights files, called as `hsoftmax export` calls them."""

import io
import json
import pickle  # noqa: TID251 - written here, to be read without it
import struct
import zipfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from hsoftmax.exporter.sources import SourceOptions, detect_source, load
from hsoftmax.exporter.sources.checkpoint import expect_plain_pickles
from hsoftmax.exporter.sources.detection import file_kind
from hsoftmax.exporter.verification.precision_error import _map_hidden_file
from hsoftmax.models import UserError
from tests.exporter.conftest import theano_arrays
from tests.exporter.sources.fasttext_files import FastTextFile
from tests.exporter.sources.python2_pickles import python2_pickle

from .npy_bombs import npy_bombs
from .parsers import Parser

_DATA = Path(__file__).parents[1] / "exporter" / "sources" / "data"
_ARRAY_SOURCES = (
    "theano",
    "levels",
    "huffman",
    "tree",
    "paddle",
    "chainer",
    "pytorch",
    "transformer-xl",
)


def weights_parser(name: str, work: Path) -> Parser:
    """Build the parser of one format."""
    build: dict[str, Callable[[Path], Parser]] = {
        "npz": _npz, "safetensors": _safetensors, "pytorch": _pytorch, "pickle": _pickle,
        "fasttext": _fasttext, "hdf5": _hdf5, "config": _config, "shards": _shards,
    }  # fmt: skip
    return build[name](work)


def _load(path: Path, *sources: str) -> Callable[[bytes], None]:
    """Return a function that detects a file's source, and loads it as each of the named ones."""

    def run(content: bytes) -> None:
        path.write_bytes(content)
        for attempt in (lambda: detect_source(path), *(_attempt(path, name) for name in sources)):
            try:
                attempt()
            except UserError:
                continue

    return run


def _attempt(path: Path, source: str) -> Callable[[], object]:
    return lambda: load(path, source, SourceOptions())


def _arrays() -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    tree = {"syn1": normal(2, 4), "path": np.array([[0, 0], [0, 1], [0, 1]]),
            "sign": np.array([[1, 0], [-1, 1], [-1, -1]])}  # fmt: skip
    levels = {"weight_0": normal(2, 4), "bias_0": normal(2), "offsets_0": np.array([0, 2]),
              "weight_1": normal(5, 4), "bias_1": normal(5),
              "offsets_1": np.array([0, 2, 5])}  # fmt: skip
    adaptive = {"head.weight": normal(4, 4), "head.bias": normal(4),
                "tail.0.0.weight": normal(2, 4), "tail.0.1.weight": normal(3, 2)}  # fmt: skip
    return [{**theano_arrays(3, 2, 4), "n_outputs": np.array(6)}, levels, tree, adaptive]


def _npz_bytes(arrays: dict[str, np.ndarray], save: Callable[..., None] = np.savez) -> bytes:
    stream = io.BytesIO()
    save(stream, **arrays)
    return stream.getvalue()


def _zip(members: dict[str, bytes], **options: int) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", **options) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


def _npy_header(shape: tuple[int, ...]) -> bytes:
    stream = io.BytesIO()
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, header)
    return stream.getvalue()


def _npz(work: Path) -> Parser:
    seeds = [_npz_bytes(arrays) for arrays in _arrays()]
    seeds += [_npz_bytes(arrays, np.savez_compressed) for arrays in _arrays()]
    return Parser(seeds, _npz_bombs, _both(_load(work / "weights.npz", *_ARRAY_SOURCES), work))


def _npz_bombs() -> list[bytes]:
    others = {name: _npy_header((1,)) + b"\0" * 4 for name in ("b1.npy", "W2.npy", "b2.npy")}
    claim = _zip({"W1.npy": _npy_header((8, 10**12)) + b"\0" * 100, **others})
    bomb = _zip(
        {"W1.npy": _npy_header((8, 10_000_000)) + b"\0" * 320_000_000, **others},
        compression=zipfile.ZIP_DEFLATED, compresslevel=9,
    )  # fmt: skip
    digits = _zip({f"weight_{'9' * 5000}.npy": b"", "bias_0.npy": b"", "tail.1" + "0" * 5000: b""})
    named = [_zip({"W1.npy": header, **others}) for header in npy_bombs()]
    return [claim, bomb, digits, _zip({"W1": b"", **others}), *named]


def _both(run: Callable[[bytes], None], work: Path) -> Callable[[bytes], None]:
    """Also read the content as an array of hidden states."""
    path = work / "hidden.npy"

    def run_both(content: bytes) -> None:
        run(content)
        path.write_bytes(content)
        _map_hidden_file(path)

    return run_both


def _safetensors(work: Path) -> Parser:
    seeds = [save(arrays) for arrays in _arrays()]
    halves = np.zeros((4, 4), np.uint16)
    header = json.dumps(
        {"head.weight": {"dtype": "BF16", "shape": [4, 4], "data_offsets": [0, 32]}}
    ).encode()
    bfloat16 = struct.pack("<Q", len(header)) + header + halves.tobytes()
    claim = json.dumps(
        {"W1": {"dtype": "F32", "shape": [8, 10**12], "data_offsets": [0, 32 * 10**12]}}
    ).encode()
    empty = json.dumps(
        {"W1": {"dtype": "F32", "shape": [0, 2**63 - 1, 2], "data_offsets": [0, 0]}}
    ).encode()

    def bombs() -> list[bytes]:
        return [
            struct.pack("<Q", len(claim)) + claim,
            struct.pack("<Q", len(empty)) + empty,
            struct.pack("<Q", 99 << 20) + b"{",
            struct.pack("<Q", 200_001) + b'{"a":' * 40_000 + b" ",
            struct.pack("<Q", 2**64 - 1) + b"{}",
        ]

    run = _load(work / "weights.safetensors", *_ARRAY_SOURCES)
    return Parser([*seeds, bfloat16], bombs, run)


def _pytorch(work: Path) -> Parser:
    seeds = [path.read_bytes() for path in sorted(_DATA.glob("*.pt"))[:4]]
    if not seeds:
        seeds = [_zip({"archive/data.pkl": pickle.dumps({"tail.0.1.weight": 1}, 2)})]
    legacy = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."

    def bombs() -> list[bytes]:
        return [
            _zip({"archive/data.pkl": b"\x80\x02X\xff\xff\xff\x7f"}),
            _zip({"archive/data.pkl": b"\0" * 300_000_000}, compression=zipfile.ZIP_DEFLATED),
            legacy + b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x3f",
            legacy * 4,
        ]

    sources = ("pytorch", "transformer-xl", "fairseq")
    path = work / "weights.pt"
    load_all = _load(path, *sources)

    def run(content: bytes) -> None:
        load_all(content)
        if file_kind(path) == "PyTorch checkpoint":
            expect_plain_pickles(path)  # also where PyTorch is not installed

    return Parser(seeds, bombs, run)


def pickle_bombs(depth: int = 1_000_000) -> list[bytes]:
    """Return pickles of some hundred bytes that take 2**64 steps, and deep ones."""
    start = b"\x80\x04cgensim.models.word2vec\nWord2Vec\n"
    laughs = b"\x8c\x01x\x85" + b"2\x86" * 64
    model = start + b")\x81}(\x8c\x02hs\x88\x8c\x02wv"
    words = b"cgensim.models.keyedvectors\nKeyedVectors\n)\x81}("
    return [
        b"\x80\x04" + laughs + b"\x8c\x01y\x93.",
        start + b"}" + laughs + b"Ns.",
        start + b"})" + b"\x85" * depth + b"Ns.",
        b"\x80\x04)" + b"\x85" * 5000 + b"\x8c\x01y\x93.",
        start + b")" + b"\x85" * depth + b".",
        start + b"I" + b"9" * depth + b"\n.",
        start + b")\x81}(\x8c\x02hs\x88\x8c\x04syn1" + laughs + b"ub.",
        start + b")\x81}(\x8c\x02hs\x89\x8c\x08negative" + laughs + b"ub.",
        start + b")\x81}(\x8c\x02hs\x88\x8c\x07__numpys" + laughs + b"ub.",
        start + b"\x8f(" + laughs + b"\x90.",
        model + words + b"\x8c\x08expandos}(\x8c\x04code](" + laughs + b"eu" + b"ubub.",
        model + words + _repeated_words(50_000) + b"ubub.",
        start + b"}(" + b"".join(_long_integer(i) + b"N" for i in range(20_000)) + b"u.",
    ]


def _repeated_words(count: int) -> bytes:
    """Return fields of words that all name one list of that many numbers."""
    steps = b"](" + b"K\x01" * count + b"eq\x01"
    names = b"](" + b"\x8c\x01w" * count + b"e"
    lists = b"](" + b"h\x01" * count + b"e"
    return (b"\x8c\x0cindex_to_key" + names + b"\x8c\x08expandos}(\x8c\x01x" + steps
            + b"\x8c\x04code" + lists + b"\x8c\x05point" + lists + b"u")  # fmt: skip


def _long_integer(number: int) -> bytes:
    """Return an instruction for an integer of which the hash is 7, as of all others."""
    value = (7 + (number + 1) * (2**61 - 1)).to_bytes(16, "little")
    return b"\x8a\x10" + value


def _pickle(work: Path) -> Parser:
    from gensim.models import Word2Vec

    sentences = [["a", "b", "c"], ["a", "b"], ["é", "a"]]
    options = {"hs": 1, "negative": 0, "vector_size": 4, "min_count": 1, "epochs": 1, "workers": 1}
    model = Word2Vec(sentences, seed=1, **options)
    seeds = [pickle.dumps(model, protocol) for protocol in (2, 4, 5)]
    seeds += [pickle.dumps(arrays, protocol) for arrays in _arrays() for protocol in (0, 4)]
    seeds += [python2_pickle(arrays, protocol) for arrays in _arrays() for protocol in (0, 2)]
    return Parser(seeds, pickle_bombs, _load(work / "words.model", "gensim", "theano"))


def _shards(work: Path) -> Parser:
    """Indexes of shards, beside which two files lie that they may name."""
    names = ("model-1.safetensors", "model-2.safetensors")
    arrays = theano_arrays(3, 2, 4)
    for name, part in zip(names, (("W1", "b1"), ("W2", "b2")), strict=True):
        (work / name).write_bytes(save({key: arrays[key] for key in part}))
    weight_map = {"W1": names[0], "b1": names[0], "W2": names[1], "b2": names[1]}
    seeds = [json.dumps({"metadata": {}, "weight_map": weight_map}).encode()]

    def bombs() -> list[bytes]:
        return [
            b'{"weight_map": ' + b"[" * 1_000_000,
            b'{"weight_map": {"W1": "model.index.json"}}',
            b'{"weight_map": {"W1": "' + b"../" * 100_000 + b'"}}',
            json.dumps({"weight_map": {str(i): f"{i}.bin" for i in range(100_000)}}).encode(),
        ]

    return Parser(seeds, bombs, _load(work / "model.index.json", "theano", "pytorch"))


def _fasttext(work: Path) -> Parser:
    files = (FastTextFile(), FastTextFile(quantised_input=True, quantised_output=True, norms=True),
             FastTextFile(model=1, pruned=2))  # fmt: skip
    return Parser(
        [file.content() for file in files], _fasttext_bombs, _load(work / "model.bin", "fasttext")
    )


def _fasttext_bombs() -> list[bytes]:
    columns = 4000
    quantizer = struct.pack("<4i", columns, 1, 1, columns) + b"\0" * (columns * 1024)

    def bomb(rows: int, labels: dict[str, int]) -> bytes:
        file = FastTextFile(dim=columns, labels=labels)
        head = file.header() + file.dictionary()
        codes = struct.pack("<?2qi", False, rows, columns, rows) + b"\0" * rows + quantizer
        return (head + b"\1" + struct.pack("<?2qi", False, 1, columns, 1) + b"\0" + quantizer
                + b"\1" + codes)  # fmt: skip

    many = {f"__label__{i:06}": 1 for i in range(100_000)}
    deep = FastTextFile(labels={f"__label__{i:06}": 0 for i in range(20_000)}).content()
    return [bomb(3_000_000, {"__label__a": 5, "__label__b": 2}), bomb(100_000, many), deep]


def _hdf5(work: Path) -> Parser:
    if find_spec("h5py") is None:
        return Parser([b""], list, lambda _: None)
    import h5py

    path = work / "seed.h5"
    arrays = list(theano_arrays(3, 2, 4).values())

    def make(change: Callable[[h5py.File], object] = lambda _: None, **options: object) -> bytes:
        with h5py.File(path, "w") as file:
            names = ("input/W", "input/b", "level1/W", "level1/b")
            for name, array in zip(names, arrays, strict=True):
                file.create_dataset(f"layers/output/{name}", data=array, **options)
            file["vocabulary/words"] = np.array(list("abcdef"), dtype=h5py.string_dtype())
            file["vocabulary/classes"] = np.arange(6)
            change(file)
        return path.read_bytes()

    def claim(file: h5py.File) -> None:
        del file["layers/output/input/W"]
        file.create_dataset("layers/output/input/W", (10**6, 10**6), "f4", chunks=(10, 10))

    def elsewhere(file: h5py.File) -> None:
        del file["layers/output/input/W"]
        file["layers/output/input/W"] = h5py.ExternalLink("/dev/zero", "/x")

    def group(file: h5py.File) -> None:
        del file["layers/output/input/W"]
        file.create_group("layers/output/input/W")

    def scalar(file: h5py.File) -> None:
        del file["vocabulary/classes"]
        file["vocabulary/classes"] = 3

    seeds = [make(), make(compression="gzip")]
    bombs = [make(change) for change in (claim, elsewhere, group, scalar)]
    return Parser(seeds, lambda: bombs, _load(work / "model.h5", "theanolm"))


def _config(work: Path) -> Parser:
    folder = work / "model"
    folder.mkdir()
    weights = {"cluster_weight": np.zeros((1, 4), np.float32),
               "cluster_bias": np.zeros(1, np.float32),
               "out_layers.0.weight": np.zeros((6, 4), np.float32),
               "out_layers.0.bias": np.zeros(6, np.float32)}  # fmt: skip
    (folder / "model.safetensors").write_bytes(save(weights))

    def run(content: bytes) -> None:
        (folder / "config.json").write_bytes(content)
        load(folder, "transformer-xl", SourceOptions())

    bombs = [b"[" * 1_000_000, b'{"cutoffs":[1e999]}', b'{"cutoffs":{"a":1}}', b"\xff\xfe{}",
             b'{"cutoffs":[' + b"9" * 5000 + b"]}", b'{"cutoffs":null}', b"null"]  # fmt: skip
    return Parser([b'{"cutoffs": [3], "div_val": 1}', b'{"cutoffs": []}'], lambda: bombs, run)
