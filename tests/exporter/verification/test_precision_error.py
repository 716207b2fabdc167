"""Tests of the accuracy in the manifest and of the limit on the error."""

import re

import numpy as np
import pytest

from hsoftmax import bundle
from hsoftmax.cli import run
from hsoftmax.exporter import PrecisionOptions, VerificationError, export_model, parse_destination
from hsoftmax.exporter.verification.precision_error import measure_accuracy
from hsoftmax.models import from_theano, hierarchical_softmax
from tests.exporter.conftest import theano_arrays


@pytest.fixture
def calibration(tmp_path):
    path = tmp_path / "hidden.npy"
    np.save(path, np.random.default_rng(0).normal(size=(20, 6)))
    return path


def export(weights, repository, *options):
    return run(["export", str(weights), "--to", str(repository / "words"), *map(str, options)])


@pytest.mark.parametrize(
    ("precision", "max_error"), [("fp32", 1e-5), ("fp16", 2e-2), ("bf16", 0.2), ("int8", 0.5)]
)
def test_a_bundle_holds_its_accuracy_over_drawn_and_calibration_rows(
    weights, repository, calibration, precision, max_error
):
    assert export(weights, repository, "--precision", precision, "--calibration", calibration) == 0
    drawn, calibrated = bundle.open_bundle(repository / "words" / "1").manifest.accuracy
    assert (drawn.rows_from, calibrated.rows_from, calibrated.rows) == ("drawn", "calibration", 20)
    for measured in (drawn, calibrated):
        assert 0 < measured.mean_error < measured.max_error < max_error
        assert abs(measured.kl) < max_error
        assert 0.9 <= measured.top10_agreement <= 1
    assert (drawn.max_error > 1e-5) == (precision != "fp32")


def test_inspect_shows_the_accuracy(weights, repository, capsys):
    export(weights, repository, "--precision", "int8")
    assert run(["inspect", str(repository / "words" / "1")]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "accuracy, drawn 64 rows: |Δ log p| at most" in shown
    assert "top-10" in shown


def test_verify_passes_a_bundle_of_fewer_bits(weights, repository, capsys):
    export(weights, repository, "--precision", "int8")
    assert run(["verify", str(repository / "words" / "1")]) == 0
    assert "ok   log_probs, rounded logits" in capsys.readouterr().out


def test_accuracy_measures_equal_their_formulas():
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


def test_shared_minus_infinity_is_no_error_and_a_single_one_is_the_largest():
    model = from_theano(**theano_arrays())
    model.levels[1].bias[3] = -np.inf
    hidden = np.ones((2, 6), np.float32)
    expected = hierarchical_softmax.log_probs(model, hidden)
    same = measure_accuracy(model, lambda rows: expected, hidden, "drawn")
    assert (same.max_error, same.kl) == (0, 0)
    lost = np.where(np.arange(20) == 5, -np.inf, expected)
    assert measure_accuracy(model, lambda rows: lost, hidden, "drawn").max_error > 1e38


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_bias_of_minus_infinity_is_accepted(repository, precision):
    arrays = theano_arrays()
    model = from_theano(**arrays)
    model.levels[1].bias[[3, 17]] = -np.inf
    exported = export_model(
        model,
        parse_destination(repository / "words"),
        precision_options=PrecisionOptions(precision),
    )
    assert all(check.passed for check in exported.manifest.verification)
    assert exported.manifest.accuracy[0].max_error < 0.5


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


def test_too_large_an_error_is_a_verification_error(repository):
    model = from_theano(**theano_arrays())
    fidelity = PrecisionOptions("int8", max_error=1e-6)
    with pytest.raises(VerificationError, match="drawn rows: expected within 1e-06"):
        export_model(model, parse_destination(repository / "words"), precision_options=fidelity)


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
def test_invalid_calibration_rows_are_refused_in_one_line(
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
def test_a_wrong_option_exits_with_2(weights, repository, arguments, capsys):
    assert export(weights, repository, *arguments) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_agreement_counts_the_likeliest_targets_and_not_the_least_likely():
    """The two name the same likeliest target in row 0 alone, the same least likely one in none."""
    model = from_theano(**theano_arrays())
    hidden = np.random.default_rng(1).normal(size=(2, 6)).astype(np.float32)
    p = hierarchical_softmax.log_probs(model, hidden)
    order = np.argsort(-p, axis=1)
    other = np.empty_like(p)
    # Row 0: the ten likeliest, except number 7 to 10, stay in front; the rest comes in reverse.
    np.put_along_axis(other, order, -np.arange(20.0)[None], axis=1)
    moved = [*order[0, :6], *order[0, 10:14], *order[0, 6:10], *order[0, 19:13:-1]]
    other[0, moved] = -np.arange(20.0)
    # Row 1: the likeliest comes second, the least likely comes last but one.
    swapped = [order[1, 1], order[1, 0], *order[1, 2:18], order[1, 19], order[1, 18]]
    other[1, swapped] = -np.arange(20.0)
    assert (p.argmin(axis=1) != other.argmin(axis=1)).all()
    measured = measure_accuracy(model, lambda rows: other, hidden, "drawn")
    assert measured.top1_agreement == 0.5
    assert measured.top10_agreement == (0.6 + 1) / 2
