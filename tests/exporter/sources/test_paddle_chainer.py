"""Binary trees of PaddlePaddle and Chainer: their formulas, step by step, give the same answers."""

import pickle  # noqa: TID251 - written here, to be read without it

import numpy as np
import pytest

from hsoftmax.exporter import SourceError, SourceOptions, detect_source, export_file
from hsoftmax.exporter.sources import load
from hsoftmax.models import WeightsError, huffman_softmax
from hsoftmax.runtime.sessions import open_session

RNG = np.random.default_rng(0)
H = 5
HIDDEN = RNG.normal(size=(3, H)).astype(np.float32)


def softplus(z):
    return np.logaddexp(0, z)


# --- PaddlePaddle ---------------------------------------------------------------------------------


def paddle_log_prob(weight, bias, hidden, label, num_classes):
    """Return -loss of `hsigmoid_loss` with its default tree: softplus(z) - bit * z at each node."""
    number, total = label + num_classes, 0.0
    for bit in range(number.bit_length() - 1):
        node, is_right = (number >> (bit + 1)) - 1, (number >> bit) & 1
        z = weight[node].astype(np.float64) @ hidden + bias[node]
        total -= softplus(z) - is_right * z
    return total


def paddle_file(tmp_path, tensors, prefix="", **more):
    """Write what `paddle.save(layer.state_dict(), path)` writes."""
    content = {f"{prefix}{name}": tensor for name, tensor in tensors.items()}
    table = {name: f"hsigmoid_loss_0.{name[0]}_0" for name in content}
    path = tmp_path / "model.pdparams"
    path.write_bytes(pickle.dumps({**content, "StructuredToParameterName@@": table, **more}, 4))
    return path


def paddle_tensors(num_nodes):
    rng = np.random.default_rng(num_nodes)
    shapes = {"weight": (num_nodes, H), "bias": (num_nodes, 1)}
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.mark.parametrize("num_classes", [2, 3, 7, 8, 9, 37])
def test_the_default_tree_gives_paddles_loss(tmp_path, num_classes):
    tensors = paddle_tensors(num_classes - 1)
    path = paddle_file(tmp_path, tensors)
    assert detect_source(path).source == "paddle"
    model = load(path, "auto", SourceOptions(num_targets=num_classes)).model
    actual = huffman_softmax.log_probs(model, HIDDEN)
    expected = [[paddle_log_prob(tensors["weight"], tensors["bias"][:, 0], h, c, num_classes)
                 for c in range(num_classes)] for h in HIDDEN]  # fmt: skip
    np.testing.assert_allclose(actual, expected, atol=1e-12)
    np.testing.assert_allclose(np.exp(actual).sum(axis=1), 1)


def test_a_loss_without_bias_and_one_among_other_layers(tmp_path, repository):
    tensors = paddle_tensors(6)
    path = paddle_file(tmp_path, {"weight": tensors["weight"]}, "loss.", **{"fc.weight": HIDDEN})
    options = SourceOptions(num_targets=7, prefix="loss.")
    exported = export_file(path, repository / "words", source="paddle", options=options)
    actual = open_session(exported.path / "log_probs.onnx").run(None, {"hidden": HIDDEN})[0]
    expected = [[paddle_log_prob(tensors["weight"], np.zeros(6), h, c, 7) for c in range(7)]
                for h in HIDDEN]  # fmt: skip
    np.testing.assert_allclose(actual, expected, atol=1e-5)


def test_a_custom_tree_is_read_with_its_table_and_code(tmp_path):
    tensors = paddle_tensors(4)  # as many rows as classes; the last is on no path
    table = np.array([[0, 1, -1], [0, 1, 2], [0, 1, 2], [0, -1, -1]])
    code = np.array([[0, 0, -1], [0, 1, 1], [0, 1, 0], [1, -1, -1]])
    path = paddle_file(tmp_path, {**tensors, "path_table": table, "path_code": code})
    model = load(path, "auto", SourceOptions()).model
    z = HIDDEN.astype(np.float64) @ tensors["weight"].T + tensors["bias"][:, 0]
    steps = np.where(code == 1, 1, -1)
    for target in range(4):
        on_path = table[target] >= 0
        logits = z[:, table[target][on_path]] * steps[target][on_path]
        expected = -softplus(-logits).sum(axis=1)
        actual = huffman_softmax.log_probs(model, HIDDEN)[:, target]
        np.testing.assert_allclose(actual, expected, atol=1e-12)


def test_a_tensor_that_was_pickled_with_its_name_is_read(tmp_path):
    """As `paddle.save` of a tensor in another container does: tuple((name, array))."""

    class Tensor:
        def __init__(self, array):
            self.array = array

        def __reduce__(self):
            return tuple, (("hsigmoid_loss_0.w_0", self.array),)

    tensors = paddle_tensors(6)
    path = tmp_path / "model.pdparams"
    path.write_bytes(pickle.dumps({name: Tensor(t) for name, t in tensors.items()}, 4))
    model = load(path, "paddle", SourceOptions(num_targets=7)).model
    np.testing.assert_array_equal(model.syn1, tensors["weight"])


@pytest.mark.parametrize(
    ("changes", "num_targets", "message"),
    [
        ({}, None, r"--num-targets: expected 7 for the default tree, got none: give it, or save"),
        ({}, 6, r"--num-targets: expected 7 for the default tree, got 6: give it, or save path_t"),
        ({"bias": np.ones((6, 2))}, 7, r"bias: expected \[6, 1\], got \[6, 2\]"),
        ({"bias": np.ones(5)}, 7, r"bias: expected \[6\], got \[5\]"),
        ({"weight": np.ones(6)}, 7, r"weight: expected \[nodes, H\], got \[6\]"),
        ({"weight": None}, 7, r"expected weight, got no weight"),
        ({"path_table": np.zeros((2, 1), int)}, None, r"expected path_table, path_code, got no"),
        (
            {"path_table": np.zeros((2, 1), int), "path_code": np.array([[0], [2]])}, None,
            r"path_code: expected 0 and 1, got others",
        ),
        (
            {"path_table": np.zeros((2, 1), int), "path_code": np.array([[0], [0]])}, None,
            r"expected one binary tree",
        ),
        ({"scale": np.ones(3)}, 7, r"softmax has, got scale with them"),
    ],
)  # fmt: skip
def test_parameters_that_do_not_fit_are_one_line(tmp_path, changes, num_targets, message):
    tensors = {k: v for k, v in (paddle_tensors(6) | changes).items() if v is not None}
    with pytest.raises((SourceError, WeightsError), match=message) as raised:
        load(paddle_file(tmp_path, tensors), "paddle", SourceOptions(num_targets=num_targets))
    assert "\n" not in str(raised.value)


def test_a_default_tree_that_a_small_file_claims_is_refused(tmp_path):
    """Its paths take a hundred bytes for each node, of which a compressed file has next to none."""
    path, nodes = tmp_path / "model.npz", 2**20
    np.savez_compressed(path, weight=np.zeros((nodes, 1), np.float32))
    with pytest.raises(SourceError, match=r"weight: expected at most \d+ bytes of numbers"):
        load(path, "paddle", SourceOptions(num_targets=nodes + 1))


# --- Chainer --------------------------------------------------------------------------------------

TREE = (((3, 1), 0), (2, (4, 5)))


def chainer_paths(node, path=(), code=(), numbers=None):
    """Return {word: (nodes, codes)} of Chainer, which numbers nodes in the order of a visit."""
    numbers = [0] if numbers is None else numbers
    if not isinstance(node, tuple):
        return {node: (path, code)}
    own = numbers[0]
    numbers[0] += 1
    left = chainer_paths(node[0], (*path, own), (*code, 1), numbers)
    return left | chainer_paths(node[1], (*path, own), (*code, -1), numbers)


def chainer_arrays():
    paths = chainer_paths(TREE)
    ordered = [paths[word] for word in range(len(paths))]
    return {
        "W": np.random.default_rng(3).normal(size=(5, H)).astype(np.float32),
        "begins": np.cumsum([0, *(len(nodes) for nodes, _ in ordered)]).astype(np.int32),
        "paths": np.concatenate([nodes for nodes, _ in ordered]).astype(np.int32),
        "codes": np.concatenate([code for _, code in ordered]).astype(np.float32),
    }


@pytest.mark.parametrize("prefix", ["", "loss/"])
def test_chainers_tree_gives_its_loss(tmp_path, repository, prefix):
    arrays = chainer_arrays()
    others = {"embed/W": np.ones((9, H))} if prefix else {}
    np.savez(tmp_path / "m.npz", **{f"{prefix}{name}": a for name, a in arrays.items()}, **others)
    options = SourceOptions(prefix=prefix or None)
    exported = export_file(tmp_path / "m.npz", repository / "w", source="auto", options=options)
    assert exported.manifest.source.format == "chainer"
    actual = open_session(exported.path / "log_probs.onnx").run(None, {"hidden": HIDDEN})[0]
    for word, (nodes, code) in chainer_paths(TREE).items():
        wxy = HIDDEN.astype(np.float64) @ arrays["W"][list(nodes)].T * code
        np.testing.assert_allclose(actual[:, word], -softplus(-wxy).sum(axis=1), atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            dict.fromkeys(("begins", "paths", "codes")),
            r"expected the tree of W, .*link._func.paths",
        ),
        ({"codes": None}, r"expected W, begins, paths, codes, got no codes"),
        ({"begins": np.array([0, 3])}, r"begins: expected ascending numbers from 0 to 16, got oth"),
        ({"begins": np.array([0, 9, 3, 16])}, r"begins: expected ascending numbers from 0 to 16"),
        ({"begins": np.array([])}, r"begins: expected integers, got dtype float64"),
        ({"codes": np.zeros(16)}, r"codes: expected -1 and 1, got others"),
        ({"codes": np.ones(3)}, r"codes: expected \[16\], got \[3\]"),
        ({"W": np.ones((2, H))}, r"path: expected nodes 0 to 1"),
        ({"begins": np.array([0, 0, *np.cumsum([3, 3, 2, 3, 2, 3])])}, r"expected one binary tree"),
        ({"b": np.ones(5)}, r"softmax has, got b with them"),
    ],
)
def test_a_tree_that_does_not_fit_is_one_line(tmp_path, changes, message):
    arrays = {k: v for k, v in (chainer_arrays() | changes).items() if v is not None}
    np.savez(tmp_path / "m.npz", **arrays)
    with pytest.raises((SourceError, WeightsError), match=message) as raised:
        load(tmp_path / "m.npz", "chainer", SourceOptions())
    assert "\n" not in str(raised.value)
