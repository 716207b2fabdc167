"""A bundle says how far its answers are from the trained weights, and may be refused for it."""

import re

import numpy as np
import pytest

from hsoftmax import bundle
from hsoftmax.cli import run
from hsoftmax.exporter import Fidelity, VerificationError, destination, export_model
from hsoftmax.exporter.verification.accuracy import measure_accuracy
from hsoftmax.models import from_theano, hierarchical_softmax
from tests.exporter.conftest import theano_arrays


@pytest.fixture
def calibration(tmp_path):
    path = tmp_path / "hidden.npy"
    np.save(path, np.random.default_rng(0).normal(size=(20, 6)))
    return path


def export(weights, repository, *options):
    return run(["export", str(weights), "--to", str(repository / "words"), *map(str, options)])


@pytest.mark.parametrize(("precision", "most"), [("fp32", 1e-5), ("fp16", 2e-2), ("int8", 0.5)])
def test_a_bundle_holds_its_accuracy_over_drawn_and_given_rows(
    weights, repository, calibration, precision, most
):
    assert export(weights, repository, "--precision", precision, "--calibration", calibration) == 0
    drawn, given = bundle.open_bundle(repository / "words" / "1").manifest.accuracy
    assert (drawn.rows_from, given.rows_from, given.rows) == ("drawn", "calibration", 20)
    for measured in (drawn, given):
        assert 0 < measured.mean_error < measured.max_error < most
        assert abs(measured.kl) < most
        assert 0.9 <= measured.top10_agreement <= 1
    assert (drawn.max_error > 1e-5) == (precision != "fp32")


def test_inspect_shows_it(weights, repository, capsys):
    export(weights, repository, "--precision", "int8")
    assert run(["inspect", str(repository / "words" / "1")]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "accuracy, drawn 64 rows: |Δ log p| at most" in shown
    assert "top-10" in shown


def test_verify_passes_a_bundle_of_fewer_bits(weights, repository, capsys):
    export(weights, repository, "--precision", "int8")
    assert run(["verify", str(repository / "words" / "1")]) == 0
    assert "ok   log_probs, rounded logits" in capsys.readouterr().out


def test_figures_are_those_of_the_two_distributions():
    model = from_theano(**theano_arrays())
    hidden = np.random.default_rng(1).normal(size=(7, 6)).astype(np.float32)
    other = from_theano(**theano_arrays(seed=1))
    p, q = (hierarchical_softmax.log_probs(m, hidden) for m in (model, other))
    measured = measure_accuracy(
        model, lambda rows: hierarchical_softmax.log_probs(other, rows), hidden, "drawn"
    )
    assert measured.max_error == np.abs(p - q).max()
    assert measured.mean_error == pytest.approx(np.abs(p - q).mean())
    assert measured.kl == pytest.approx((np.exp(p) * (p - q)).sum(axis=1).mean())
    assert measured.top1_agreement == (p.argmax(axis=1) == q.argmax(axis=1)).mean()


def test_targets_without_probability_agree_and_a_lost_one_is_infinitely_off():
    model = from_theano(**theano_arrays())
    model.levels[1].bias[3] = -np.inf
    hidden = np.ones((2, 6), np.float32)
    wanted = hierarchical_softmax.log_probs(model, hidden)
    same = measure_accuracy(model, lambda rows: wanted, hidden, "drawn")
    assert (same.max_error, same.kl) == (0, 0)
    lost = np.where(np.arange(20) == 5, -np.inf, wanted)
    assert measure_accuracy(model, lambda rows: lost, hidden, "drawn").max_error > 1e38


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_bias_of_minus_infinity_stays_legal(repository, precision):
    arrays = theano_arrays()
    model = from_theano(**arrays)
    model.levels[1].bias[[3, 17]] = -np.inf
    made = export_model(model, destination(repository / "words"), fidelity=Fidelity(precision))
    assert all(check.passed for check in made.manifest.verification)
    assert made.manifest.accuracy[0].max_error < 0.5


def test_a_bundle_that_misses_the_limit_is_refused_and_leaves_nothing(
    weights, repository, calibration, capsys
):
    arguments = ("--precision", "int8", "--calibration", calibration, "--max-error", "0.001")
    assert export(weights, repository, *arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith("hsoftmax: ")
    assert "rows: expected within 0.001 of the trained log p, got 0." in error
    assert error.count("\n") == 1
    assert not list(repository.rglob("*.json"))
    assert export(weights, repository, "--max-error", "0.001") == 0


def test_the_refusal_is_a_failed_verification(repository):
    model = from_theano(**theano_arrays())
    fidelity = Fidelity("int8", max_error=1e-6)
    with pytest.raises(VerificationError, match="drawn rows: expected within 1e-06"):
        export_model(model, destination(repository / "words"), fidelity=fidelity)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (np.zeros((3, 5)), r"expected \[rows, 6\] hidden states, got \[3, 5\]"),
        (np.zeros(6), r"expected \[rows, 6\] hidden states, got \[6\]"),
        (np.zeros((0, 6)), r"expected \[rows, 6\] hidden states, got \[0, 6\]"),
        (np.zeros((3, 6), int), "expected one array of floats, got int64"),
        (np.array([[0] * 6, [0, np.nan] * 3], float), "expected finite .*, got nan in row 1"),
        (np.full((1, 6), 1e30), r"expected finite values up to 1e\+18, got 1e\+30 in row 0"),
        (b"no array", "expected a .npy file of hidden states, got none"),
        (b"", "expected a .npy file of hidden states, got none"),
    ],
    ids=["width", "vector", "empty", "integers", "nan", "huge", "text", "nothing"],
)
def test_calibration_rows_that_are_none_are_refused_in_one_line(
    weights, repository, tmp_path, capsys, content, line
):
    path = tmp_path / "hidden.npy"
    path.write_bytes(content) if isinstance(content, bytes) else np.save(path, content)
    assert export(weights, repository, "--calibration", path) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(line, error)
    assert not repository.exists()


@pytest.mark.parametrize(
    "arguments",
    [("--precision", "int4"), ("--max-error", "-1"), ("--max-error", "x"), ("--calibration", "?")],
)
def test_a_wrong_call_exits_with_2(weights, repository, arguments, capsys):
    assert export(weights, repository, *arguments) == 2
    assert capsys.readouterr().err.count("\n") == 1
