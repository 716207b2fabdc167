"""Verification: every graph of a bundle against the NumPy reference, before anyone may see it.

The reference reads the weights that the bundle holds, as the float32 that they stand for; what it
cost to store them in fewer bits is another question, see `accuracy`.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
from onnxruntime import InferenceSession

from hsoftmax import bundle, models
from hsoftmax.models.arrays import Array
from hsoftmax.runtime.sessions import open_session

from .block_dot_cases import block_dot_cases
from .cases import Case, cases

_PAIRS = 64
_SAMPLES = 16
_K = 10

Run = Callable[..., list[Array]]
Compared = tuple[Array, Array]  # got, wanted


def verify(path: Path, manifest: bundle.Manifest, *, seed: int = 0) -> tuple[bundle.Check, ...]:
    """Compare every task of the bundle at `path` with the reference, in every case."""
    tensors = bundle.load_tensors(bundle.Bundle(path, manifest))
    model = models.from_tensors(manifest.family, tensors, manifest.attributes)
    if isinstance(model, models.SparseBlockDot):
        session = open_session(path / manifest.tasks["block_dot"].file)
        return tuple(_block_dot_checks(session, model, np.random.default_rng(seed)))
    sample = manifest.tasks.get("sample")
    uniforms = sample.noise_per_sample if sample is not None else 0
    drawn = list(cases(model, manifest.precision, uniforms, np.random.default_rng(seed)))
    return tuple(
        check
        for task, graph in manifest.tasks.items()
        for check in _checks(task, open_session(path / graph.file), drawn)
    )


def failures(checks: tuple[bundle.Check, ...]) -> list[str]:
    """One sentence for each check that failed."""
    return [
        f"{c.task}, {c.case} logits: expected within {c.tolerance:.1e} of the reference, "
        f"got {c.max_error:.1e}"
        for c in checks
        if not c.passed
    ]


def _checks(task: str, session: InferenceSession, drawn: list[Case]) -> Iterator[bundle.Check]:
    def run(**inputs: Array) -> list[Array]:
        outputs: list[Array] = session.run(None, inputs)
        return outputs

    for case in drawn:
        yield _check(task, case.name, _COMPARED[task](run, case), case.tolerance)


def _block_dot_checks(
    session: InferenceSession, model: models.SparseBlockDot, rng: np.random.Generator
) -> Iterator[bundle.Check]:
    for case in block_dot_cases(model, rng):
        compared = (session.run(None, case.feeds)[0], case.output)
        yield _check("block_dot", case.name, compared, case.tolerance)


def _check(task: str, case: str, compared: Compared, tolerance: float) -> bundle.Check:
    error = _max_error(*compared)
    return bundle.Check(
        task=task,
        case=case,
        values=compared[0].size,
        max_error=error,
        tolerance=tolerance,
        passed=error <= tolerance,
    )


def _max_error(got: Array, wanted: Array) -> float:
    """The largest difference; a NaN, or an infinity in one of the two alone, is infinitely off."""
    with np.errstate(invalid="ignore"):
        differences = np.where(got == wanted, 0.0, np.abs(got.astype(np.float64) - wanted))
    worst = float(differences.max(initial=0.0))
    return worst if np.isfinite(worst) else float(np.finfo(np.float64).max)


def _log_probs(run: Run, case: Case) -> Compared:
    return run(hidden=case.hidden)[0], case.log_probs


def _cluster_log_probs(run: Run, case: Case) -> Compared:
    wanted = case.cluster_log_probs
    assert wanted is not None, "a family that offers the task has clusters"
    return run(hidden=case.hidden)[0], wanted


def _target_log_prob(run: Run, case: Case) -> Compared:
    last = case.log_probs.shape[1] - 1
    target = np.concatenate([[0, last, last], case.rng.integers(0, last + 1, _PAIRS - 3)])
    row = case.rng.integers(0, len(case.hidden), _PAIRS)
    return run(hidden=case.hidden, row=row, target=target)[0], case.log_probs[row, target]


def _top_k(run: Run, case: Case) -> Compared:
    """Both the k values in their order and what the reference says of the k targets named."""
    k = min(_K, case.log_probs.shape[1])
    limits = {"k": np.array([k]), "max_blocks": np.array([0])}
    log_prob, target, _, exact = run(hidden=case.hidden, **limits)
    best = -np.sort(-case.log_probs, axis=1)[:, :k]
    named = np.take_along_axis(case.log_probs, target, axis=1)
    proven = np.where(exact, 0.0, np.nan)
    return np.stack([log_prob, log_prob, proven[:, None] + log_prob]), np.stack(
        [best, named, log_prob.astype(np.float64)]
    )


def _sample(run: Run, case: Case) -> Compared:
    """What a sample says of the targets it drew."""
    noise = case.rng.random((len(case.hidden), _SAMPLES, case.uniforms), dtype=np.float32)
    target, log_prob = run(hidden=case.hidden, noise=noise)
    return log_prob, np.take_along_axis(case.log_probs, target, axis=1)


_COMPARED: Mapping[str, Callable[[Run, Case], Compared]] = {
    "log_probs": _log_probs,
    "cluster_log_probs": _cluster_log_probs,
    "target_log_prob": _target_log_prob,
    "top_k": _top_k,
    "sample": _sample,
}
