"""Tests of adaptive softmaxes in the files of PyTorch, Transformer-XL and fairseq.

Each file also holds the expected results, see data/make_adaptive.py.
"""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from hsoftmax.exporter import SourceError, export_file
from hsoftmax.exporter.sources import SourceOptions, detect_source, load
from hsoftmax.models import WeightsError, adaptive_softmax

DATA = Path(__file__).parent / "data"
CUTOFFS = {  # arguments of PyTorch in make_adaptive.py, which the files do not hold
    "one_tail": (4,),
    "upstream": (5, 10, 15),
    "upstream_predict": (4, 8),
    "div_1": (10, 20),
    "div_1_5": (3, 11, 12),
    "div_4_width_0": (5, 10, 15),
    "four_tails": (8, 16, 30, 59),
    "larger": (60, 300),
    "weight_norm": (10, 20),
}
CUT_XL = {"cutoffs": (6, 12, 18)}
TRANSFORMER_XL = {
    "div_1": CUT_XL,
    "div_1_projected": CUT_XL,
    "div_2": {},
    "div_4_projected": {},
}
FAIRSEQ = ("untied", "tied", "tied_proj", "tied_narrow_head", "tied_square")


def assert_log_probs_of_file(model, path: Path, kind: str = "log_prob"):
    stored = load_file(path)
    hidden, expected = stored["answers.hidden"], stored[f"answers.{kind}"]
    actual = adaptive_softmax.log_probs(model, hidden)
    np.testing.assert_allclose(actual, expected, atol=1e-5)
    if kind == "log_prob":
        _, best = adaptive_softmax.top_k(model, hidden, 1)
        assert best[:, 0].tolist() == stored["answers.best"].tolist()


def write_changed_copy(tmp_path: Path, name: str, **changes) -> Path:
    """Write a copy of a file in which tensors with these name endings are replaced or removed."""
    tensors = load_file(DATA / f"{name}.safetensors")
    for ending, value in changes.items():
        (name_in_file,) = (
            tensor_name
            for tensor_name in tensors
            if tensor_name.endswith(ending.replace("__", "."))
        )
        del tensors[name_in_file]
        if value is not None:
            tensors[name_in_file] = np.asarray(value, dtype=np.float32)
    path = tmp_path / "model.safetensors"
    save_file(tensors, path)
    return path


@pytest.mark.parametrize("name", CUTOFFS)
def test_pytorchs_log_prob_and_predict_are_reproduced(name):
    path = DATA / f"pytorch_{name}.safetensors"
    model = load(path, "pytorch", SourceOptions()).model
    assert model.cutoffs == CUTOFFS[name]
    assert_log_probs_of_file(model, path)


@pytest.mark.parametrize("name", ["larger", "div_4_width_0"])
def test_a_bundle_of_pytorchs_softmax_equals_pytorch(name, repository):
    path = DATA / f"pytorch_{name}.safetensors"
    exported = export_file(path, repository / "words", source="auto")
    assert (exported.manifest.family, exported.manifest.source.format) == (
        "AdaptiveSoftmax",
        "pytorch",
    )
    assert all(check.passed for check in exported.manifest.verification)
    assert tuple(exported.manifest.attributes["cutoffs"]) == CUTOFFS[name]


@pytest.mark.parametrize("name", ["half", "bfloat16"])
def test_sixteen_bit_floats_are_widened(name):
    model = load(DATA / f"pytorch_{name}.safetensors", "pytorch", SourceOptions()).model
    whole = load(DATA / "pytorch_upstream.safetensors", "pytorch", SourceOptions()).model
    np.testing.assert_allclose(model.head.weight, whole.head.weight, rtol=1e-2)
    assert model.head.weight.dtype == np.float32


@pytest.mark.parametrize("order", ["ascending", "reversed"])
@pytest.mark.parametrize("name", TRANSFORMER_XL)
def test_transformer_xls_log_probs_are_reproduced_in_both_orders(name, order):
    path = DATA / f"transformer_xl_{name}.safetensors"
    options = SourceOptions(cluster_order=order, **TRANSFORMER_XL[name])
    assert_log_probs_of_file(
        load(path, "transformer-xl", options).model,
        path,
        "log_prob" if order == "ascending" else "reversed",
    )


@pytest.mark.parametrize("cutoffs", [[6, 12, 18], [6, 12, 18, 24]])
def test_a_folders_config_gives_the_cutoffs(tmp_path, cutoffs):
    path = DATA / "transformer_xl_div_1.safetensors"
    (tmp_path / "model.safetensors").write_bytes(path.read_bytes())
    (tmp_path / "config.json").write_text(json.dumps({"cutoffs": cutoffs}))
    assert_log_probs_of_file(load(tmp_path, "transformer-xl", SourceOptions()).model, path)
    assert detect_source(tmp_path).source == "transformer-xl"


def test_a_config_may_have_a_byte_order_mark_but_no_other_encoding(tmp_path):
    path = DATA / "transformer_xl_div_1.safetensors"
    (tmp_path / "model.safetensors").write_bytes(path.read_bytes())
    config = tmp_path / "config.json"
    text = json.dumps({"cutoffs": [6, 12, 18]})
    config.write_text(text, "utf-8-sig")
    assert_log_probs_of_file(load(tmp_path, "transformer-xl", SourceOptions()).model, path)
    config.write_text(text, "utf-16")
    with pytest.raises(SourceError, match=r"config.json: expected UTF-8 text, got UTF-16"):
        load(tmp_path, "transformer-xl", SourceOptions())


@pytest.mark.parametrize("name", ["div_1_projected", "div_2"])
def test_layers_tied_to_the_embedding_may_be_missing(tmp_path, name):
    path = DATA / f"transformer_xl_{name}.safetensors"
    renamed = {}
    for full, tensor in load_file(path).items():
        tied = full.replace("crit.out_layers", "transformer.word_emb.emb_layers")
        tied = tied.replace("crit.out_projs", "transformer.word_emb.emb_projs")
        renamed[full if full.endswith("bias") else tied] = tensor
    if name == "div_1_projected":  # the embedding has one projection for all
        for i in range(4):
            renamed.pop(f"transformer.word_emb.emb_projs.{i}")
        shared = load_file(path)["crit.out_projs.0"]
        renamed["transformer.word_emb.emb_projs.0"] = shared
    save_file(renamed, tmp_path / "model.safetensors")
    options = SourceOptions(**TRANSFORMER_XL[name])
    model = load(tmp_path / "model.safetensors", "transformer-xl", options).model
    if name == "div_2":
        assert_log_probs_of_file(model, path)
    else:
        for tail in (model.head, *model.tails):
            np.testing.assert_array_equal(tail.projection, shared.T)


@pytest.mark.parametrize("name", FAIRSEQ)
def test_fairseqs_log_probs_are_reproduced(name):
    path = DATA / f"fairseq_{name}.safetensors"
    assert_log_probs_of_file(load(path, "fairseq", SourceOptions()).model, path)


@pytest.mark.parametrize("path", sorted(DATA.glob("*.safetensors")), ids=lambda path: path.stem)
def test_every_file_is_detected_as_its_format(path):
    assert path.stem.startswith(detect_source(path).source.replace("-", "_"))


@pytest.mark.parametrize("path", sorted(DATA.glob("*.pt")), ids=lambda path: path.stem)
def test_a_checkpoint_is_detected_without_pytorch(path):
    assert detect_source(path).source == "pytorch"


@pytest.mark.parametrize(
    ("source", "name", "changes", "options", "message"),
    [
        ("pytorch", "pytorch_upstream", {"head__weight": None}, {},
         r"model.safetensors: expected tail.0.1.weight and head.weight under any prefix, got no"),
        ("pytorch", "pytorch_upstream", {"tail__1__1__weight": None}, {},
         r"expected lm.softmax.tail.1.1.weight, got only later ones"),
        ("pytorch", "pytorch_upstream", {"tail__2__0__weight": None}, {},
         r"expected lm.softmax.tail.2.0.weight, got none"),
        ("pytorch", "pytorch_upstream", {"tail__0__0__weight": np.zeros((8, 15))}, {},
         r"tail 0 projection: expected \[8, 16\], got \[8, 15\]"),
        ("pytorch", "pytorch_upstream", {"tail__0__1__weight": np.zeros((5, 7))}, {},
         r"tail 0 projection: expected \[7, 16\], got \[8, 16\]"),
        ("pytorch", "pytorch_upstream", {"head__weight": np.full((8, 16), np.nan)}, {},
         r"head weight: expected finite float32 values, got nan at \[0, 0\]"),
        ("pytorch", "pytorch_upstream", {}, {"cutoffs": (5, 10, 16)},
         r"cutoffs: expected 5,10,15 as its tensors have, got 5,10,16"),
        ("pytorch", "pytorch_upstream", {}, {"num_targets": 19},
         r"num_targets: expected 20, as its tensors have, got 19"),
        ("pytorch", "fairseq_untied", {}, {}, r"expected tail.0.1.weight and head.weight"),
        ("transformer-xl", "transformer_xl_div_1", {}, {},
         r"cutoffs: expected --cutoffs A,B or a config.json .* out_layers.0 holds all 24 targets"),
        ("transformer-xl", "transformer_xl_div_1", {}, {"cutoffs": (6, 12)},
         r"cutoffs: expected 3 ascending numbers from 1 to 23, .* got 6,12$"),
        ("transformer-xl", "transformer_xl_div_1", {}, {"cutoffs": (6, 12, 30)},
         r"cutoffs: expected 3 ascending numbers from 1 to 23, .* got 6,12,30"),
        ("transformer-xl", "transformer_xl_div_2", {"cluster_weight": np.zeros((3, 7))}, {},
         r"cluster_weight: expected \[3, 8\], got \[3, 7\]"),
        ("transformer-xl", "transformer_xl_div_2", {"cluster_weight": None}, {},
         r"expected cluster_weight under any prefix, got no such tensors"),
        ("transformer-xl", "transformer_xl_div_2", {"out_projs__1": np.zeros((9, 4))}, {},
         r"tail 0 projection: expected \[4, 8\], got \[4, 9\]"),
        ("fairseq", "fairseq_untied", {"head__weight": None}, {},
         r"expected model.decoder.adaptive_softmax.head.weight or .*class_proj.weight, got none"),
        ("fairseq", "fairseq_tied", {"word_proj__weight": None}, {},
         r"expected .*word_proj.weight, got neither it nor .*word_proj.0.weight"),
        ("fairseq", "fairseq_tied", {"class_proj__weight": np.zeros((2, 5))}, {},
         r"class_proj.weight: expected \[2, 12\], got \[2, 5\]"),
        ("fairseq", "fairseq_tied", {"class_proj__weight": np.zeros((3, 12))}, {},
         r"class_proj.weight: expected \[2, 12\], got \[3, 12\]"),
        ("fairseq", "fairseq_untied", {"version": None}, {},
         r"expected .*adaptive_softmax.version, got none: models of older .* differently"),
        ("fairseq", "fairseq_tied_square", {"embeddings__1__1__weight": None}, {},
         r"expected model.decoder.embed_tokens.embeddings.1.1.weight, which shows if the square"),
        ("fairseq", "fairseq_untied", {"tail__1__2__weight": None}, {},
         r"expected only .*, got model.decoder.adaptive_softmax.tail.1.0.weight with them"),
        ("pytorch", "pytorch_upstream", {"tail__2__1__weight": None}, {},
         r"expected only .*, got lm.softmax.tail.2.0.weight with them"),
        ("transformer-xl", "transformer_xl_div_2", {"cluster_bias": None}, {},
         r"expected crit.cluster_bias, got none"),
        ("transformer-xl", "transformer_xl_div_2", {"out_layers__2__bias": None}, {},
         r"expected crit.out_layers.2.bias, got none"),
        ("transformer-xl", "transformer_xl_div_1", {"out_layers__0__bias": np.zeros(23)}, CUT_XL,
         r"crit.out_layers.0.bias: expected \[24\], got \[23\]"),
        ("transformer-xl", "transformer_xl_div_2", {"out_projs__3": None}, {},
         r"expected crit.out_projs.3, got neither it nor word_emb.emb_projs.3"),
        ("transformer-xl", "transformer_xl_div_2", {f"out_projs__{i}": None for i in range(4)}, {},
         r"expected crit.out_projs.0, got neither"),
        ("transformer-xl", "transformer_xl_div_1_projected", {"out_projs__3": None}, CUT_XL,
         r"expected crit.out_projs.3, got neither"),
        ("fairseq", "fairseq_untied", {"tail__1__0__weight": None}, {},
         r"expected model.decoder.adaptive_softmax.tail.1.0.weight, got none"),
        ("fairseq", "fairseq_tied_narrow_head", {"word_proj__1__weight": np.zeros((8, 9))}, {},
         r"word_proj.1.weight: expected \[shortlist, 10\], got \[8, 9\]"),
        ("fairseq", "pytorch_upstream", {}, {}, r"expected tail.0.2.weight and tail.0.0.weight"),
    ],
)  # fmt: skip
def test_tensors_that_do_not_fit_are_refused_in_one_line(
    tmp_path, source, name, changes, options, message
):
    path = write_changed_copy(tmp_path, name, **changes)
    with pytest.raises((SourceError, WeightsError), match=message) as raised:
        load(path, source, SourceOptions(**options))
    assert "\n" not in str(raised.value)


def test_two_softmaxes_in_one_file_are_refused_with_their_prefixes(tmp_path):
    one = load_file(DATA / "pytorch_half.safetensors")
    both = {f"{prefix}{name}": t for prefix in ("ema.", "model.") for name, t in one.items()}
    save_file(both, tmp_path / "model.safetensors")
    with pytest.raises(SourceError, match=r"under one prefix, got 'ema.', 'model.'"):
        load(tmp_path / "model.safetensors", "pytorch", SourceOptions())


def test_without_pytorch_one_line_names_the_extra_for_an_older_checkpoint(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(SourceError, match=r"expected PyTorch .* pip install '\.\[pytorch\]'"):
        load(DATA / "pytorch_old.pt", "pytorch", SourceOptions())


def test_a_folder_needs_one_weights_file(tmp_path):
    with pytest.raises(SourceError, match=r"expected a folder with a weights file"):
        load(tmp_path, "transformer-xl", SourceOptions())
    for name in ("a.bin", "b.bin"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(SourceError, match=r"expected one weights file \*.bin, got a.bin, b.bin"):
        load(tmp_path, "transformer-xl", SourceOptions())


def test_a_bare_pickle_is_refused_and_not_run(tmp_path):
    path = tmp_path / "weights.pt"
    path.write_bytes(b"\x80\x04cos\nsystem\n(S'touch owned'\ntR.")
    with pytest.raises(SourceError, match=r"expected tail.0.1.weight and head.weight under"):
        load(path, "pytorch", SourceOptions())
    assert not Path("owned").exists()
