"""Tests against PyTorch: its results and its checkpoints. Run with `pytest -m torch`."""

from pathlib import Path

import numpy as np
import pytest

from hsoftmax.exporter import SourceError
from hsoftmax.exporter.sources import SourceOptions, load
from hsoftmax.models import adaptive_softmax
from tests.exporter.graphs.task_runner import TaskRunner

torch = pytest.importorskip("torch")
pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("default")]

DATA = Path(__file__).parent / "data"
CASES = [
    (cutoffs, div_value, head_bias)
    for cutoffs in ([5], [5, 10, 15], [2, 3, 39])
    for div_value in (1.0, 2.0, 4.0)
    for head_bias in (False, True)
]


@pytest.fixture(scope="module", params=CASES, ids=str)
def module(request):
    cutoffs, div_value, head_bias = request.param
    torch.manual_seed(0)
    return torch.nn.AdaptiveLogSoftmaxWithLoss(
        16, 40, cutoffs, div_value=div_value, head_bias=head_bias
    )


def test_every_target_and_the_best_are_pytorchs(module, tmp_path):
    torch.save({"state_dict": module.state_dict()}, tmp_path / "model.pt")
    model = load(tmp_path / "model.pt", "auto", SourceOptions()).model
    assert list(model.cutoffs) == module.cutoffs[:-1]
    hidden = torch.randn(9, 16) * 3
    with torch.no_grad():
        full, best = module.log_prob(hidden).numpy(), module.predict(hidden).numpy()
        alone = module(hidden, torch.arange(9) * 4).output.numpy()
    run, rows = TaskRunner(model, tmp_path), hidden.numpy()
    row, target = np.divmod(np.arange(9 * 40), 40)
    actual = run("target_log_prob", hidden=rows, row=row, target=target)[0]
    np.testing.assert_allclose(actual.reshape(9, 40), full, atol=1e-5)
    np.testing.assert_allclose(actual.reshape(9, 40)[range(9), np.arange(9) * 4], alone, atol=1e-5)
    np.testing.assert_allclose(run("log_probs", hidden=rows)[0], full, atol=1e-5)
    log_prob, top, _, exact = run.top_k(rows, 1)
    assert (top[:, 0] == best).all()
    assert exact.all()
    np.testing.assert_allclose(log_prob[:, 0], full.max(axis=1), atol=1e-5)


@pytest.mark.parametrize("name", ["bare", "nested", "old", "bfloat16"])
def test_checkpoints_in_every_form_hold_the_same_softmax(name):
    model = load(DATA / f"pytorch_{name}.pt", "auto", SourceOptions()).model
    whole = load(DATA / "pytorch_upstream.safetensors", "pytorch", SourceOptions()).model
    tolerance = {"rtol": 1e-2} if name == "bfloat16" else {"rtol": 0}
    for actual, expected in zip(
        (model.head, *model.tails), (whole.head, *whole.tails), strict=True
    ):
        np.testing.assert_allclose(actual.weight, expected.weight, **tolerance)


def test_bfloat16_is_widened_as_pytorch_widens_it():
    ours = load(DATA / "pytorch_bfloat16.safetensors", "pytorch", SourceOptions()).model
    theirs = load(DATA / "pytorch_bfloat16.pt", "pytorch", SourceOptions()).model
    np.testing.assert_array_equal(ours.head.weight, theirs.head.weight)


def test_several_softmaxes_are_refused_with_their_prefixes():
    with pytest.raises(SourceError, match=r"under one prefix, got 'one.', 'two.': choose one"):
        load(DATA / "pytorch_twice.pt", "pytorch", SourceOptions())


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("new", [True, False])
def test_a_malicious_checkpoint_is_refused_in_one_line_and_not_run(tmp_path, new):
    path = tmp_path / "model.pt"
    softmax = torch.nn.AdaptiveLogSoftmaxWithLoss(8, 10, [4]).state_dict()
    content = {**softmax, "x": Malicious(tmp_path / "owned")}
    torch.save(content, path, _use_new_zipfile_serialization=new)
    message = "with them" if new else "expected a checkpoint of tensors"
    with pytest.raises(SourceError, match=rf"model.pt: .*{message}") as raised:
        load(path, "auto", SourceOptions())
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "owned").exists()


def test_a_whole_pickled_module_is_refused(tmp_path):
    path = tmp_path / "model.pt"
    torch.save(torch.nn.AdaptiveLogSoftmaxWithLoss(8, 10, [4]), path)
    with pytest.raises(SourceError, match=r"expected a checkpoint of tensors alone"):
        load(path, "pytorch", SourceOptions())


@pytest.mark.parametrize("keep", [0.3, 0.9])
@pytest.mark.parametrize("name", ["bare", "old"])
def test_a_truncated_checkpoint_is_one_line(tmp_path, name, keep):
    whole = (DATA / f"pytorch_{name}.pt").read_bytes()
    path = tmp_path / "model.pt"
    path.write_bytes(whole[: int(len(whole) * keep)])
    with pytest.raises(SourceError, match=r"model.pt: expected") as raised:
        load(path, "pytorch", SourceOptions())
    assert "\n" not in str(raised.value)


def test_the_references_log_prob_is_pytorchs_in_float64(module, tmp_path):
    torch.save(module.state_dict(), tmp_path / "model.pt")
    model = load(tmp_path / "model.pt", "pytorch", SourceOptions()).model
    hidden = torch.randn(5, 16)
    with torch.no_grad():
        expected = module.double().log_prob(hidden.double()).numpy()
    module.float()
    np.testing.assert_allclose(
        adaptive_softmax.log_probs(model, hidden.numpy()), expected, atol=1e-12
    )


@pytest.mark.parametrize(("div_val", "d_embed"), [(1, 16), (1, 8), (2, 16)])
def test_a_folder_saved_by_transformers_equals_its_own_module(tmp_path, div_val, d_embed):
    """It needs transformers < 5, the last with Transformer-XL, which omits tied layers."""
    xl = pytest.importorskip("transformers.models.deprecated.transfo_xl")
    sizes = {"d_model": 16, "d_embed": d_embed, "n_head": 2, "d_head": 8, "d_inner": 16}
    config = xl.TransfoXLConfig(
        vocab_size=60, cutoffs=[10, 30], n_layer=1, div_val=div_val, **sizes
    )
    torch.manual_seed(0)
    whole = xl.TransfoXLLMHeadModel(config).eval()
    for parameter in whole.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    whole.save_pretrained(tmp_path)
    model = load(tmp_path, "auto", SourceOptions()).model
    hidden = torch.randn(7, 16)
    with torch.no_grad():
        expected = whole.crit(hidden).numpy()
    assert model.cutoffs == (10, 30)
    np.testing.assert_allclose(
        adaptive_softmax.log_probs(model, hidden.numpy()), expected, atol=1e-5
    )
