"""Verification: compares every graph of a bundle with the NumPy reference before it is visible.

`verify_kernels` compares the native kernels of this machine, which compute some tasks in place of
their graphs. A bundle may move to another machine, so its manifest tells of its graphs alone.

The reference uses the weights that the bundle holds, converted to float32. `accuracy` measures the
error of storing them in fewer bits.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
from onnxruntime import InferenceSession

from hsoftmax import bundle, models
from hsoftmax.exporter.errors import VerificationError
from hsoftmax.models.arrays import Array
from hsoftmax.runtime.cuda import LoweredTask
from hsoftmax.runtime.native import Kernel, NativeError, NativeLibrary, has_kernel, open_kernel
from hsoftmax.runtime.sessions import open_lowered, open_session

from .block_dot_cases import block_dot_cases
from .cases import SoftmaxCase, softmax_cases

_NUM_PAIRS = 64
_NUM_SAMPLES = 16
_TOP_K = 10
_MAX_LOWERED_BYTES = 1 << 24  # of a run of a graph for CUDA: several runs for a large bundle

_RunGraph = Callable[..., list[Array]]
_ActualAndExpected = tuple[Array, Array]


def verify(path: Path, manifest: bundle.Manifest, *, seed: int = 0) -> tuple[bundle.Check, ...]:
    """Compare every task of the bundle at `path` with the reference, in every case.

    Graphs for CUDA run on the CPU here. They keep hidden rows in float32 for weights of any
    precision, as native kernels do.
    """
    tensors = bundle.load_tensors(bundle.Bundle(path, manifest))
    model = models.from_tensors(manifest.family, tensors, manifest.attributes)
    if isinstance(model, models.SparseBlockDot):
        return tuple(_block_dot_checks(path, manifest, model, seed))
    cases = _cases(model, manifest, manifest.precision, seed)
    graphs = tuple(
        check
        for task, graph in manifest.tasks.items()
        for check in _checks(task, _graph_runner(open_session(path / graph.file)), cases)
    )
    return graphs + _lowered_checks(path, manifest, model, seed)


def _lowered_checks(
    path: Path, manifest: bundle.Manifest, model: models.Softmax, seed: int
) -> tuple[bundle.Check, ...]:
    lowered = open_lowered(bundle.Bundle(path, manifest), max_bytes=_MAX_LOWERED_BYTES)
    cases = _cases(model, manifest, "fp32", seed) if lowered else []
    return tuple(
        check.model_copy(update={"task": _on_cuda(task)})
        for task, compute in lowered.items()
        for check in _checks(task, _kernel_runner(compute), cases)
    )


def verify_kernels(
    path: Path, manifest: bundle.Manifest, library: NativeLibrary, *, seed: int = 0
) -> tuple[bundle.Check, ...]:
    """Compare every task that has a native kernel with the reference, in every case.

    Kernels keep hidden rows in float32 for weights of any precision, so no case allows for the
    rounding that graphs over int8 weights do.

    Raises:
        VerificationError: tensors that do not fit each other.
    """
    tasks = [task for task in manifest.tasks if has_kernel(manifest.family, task)]
    if not tasks:
        return ()
    tensors = bundle.load_tensors(bundle.Bundle(path, manifest))
    model = models.from_tensors(manifest.family, tensors, manifest.attributes)
    assert not isinstance(model, models.SparseBlockDot), "a layer has no native kernel"
    cases = _cases(model, manifest, "fp32", seed)
    try:
        kernels = {
            task: open_kernel(library, manifest.family, task, tensors, manifest.attributes)
            for task in tasks
        }
    except NativeError as error:
        raise VerificationError(f"native kernels: {error}") from None
    return tuple(
        check
        for task, kernel in kernels.items()
        for check in _checks(task, _kernel_runner(kernel), cases)
    )


def failures(checks: tuple[bundle.Check, ...]) -> list[str]:
    """Return one sentence for each check that failed."""
    return [
        f"{c.task}, {c.case} logits: expected within {c.tolerance:.1e} of the reference, "
        f"got {c.max_error:.1e}"
        for c in checks
        if not c.passed
    ]


def _cases(
    model: models.Softmax, manifest: bundle.Manifest, precision: bundle.Precision, seed: int
) -> list[SoftmaxCase]:
    sample = manifest.tasks.get("sample")
    uniforms = sample.noise_per_sample if sample is not None else 0
    return list(softmax_cases(model, precision, uniforms, np.random.default_rng(seed)))


def _graph_runner(session: InferenceSession) -> _RunGraph:
    def run(**inputs: Array) -> list[Array]:
        outputs: list[Array] = session.run(None, inputs)
        return outputs

    return run


def _kernel_runner(kernel: Kernel | LoweredTask) -> _RunGraph:
    return lambda **inputs: kernel(inputs)


def _checks(task: str, run: _RunGraph, cases: list[SoftmaxCase]) -> Iterator[bundle.Check]:
    for case in cases:
        yield _check(task, case.name, _COMPARISONS[task](run, case), case.tolerance)


def _block_dot_checks(
    path: Path, manifest: bundle.Manifest, model: models.SparseBlockDot, seed: int
) -> Iterator[bundle.Check]:
    cases = list(block_dot_cases(model, np.random.default_rng(seed)))
    runs = {"block_dot": _graph_runner(open_session(path / manifest.tasks["block_dot"].file))}
    lowered = open_lowered(bundle.Bundle(path, manifest), max_bytes=_MAX_LOWERED_BYTES)
    runs |= {_on_cuda(task): _kernel_runner(compute) for task, compute in lowered.items()}
    for task, run in runs.items():
        for case in cases:
            yield _check(task, case.name, (run(**case.feeds)[0], case.output), case.tolerance)


def _on_cuda(task: str) -> str:
    return f"{task} on {bundle.CUDA_LOWERING}"


def _check(task: str, case: str, comparison: _ActualAndExpected, tolerance: float) -> bundle.Check:
    error = _max_error(*comparison)
    return bundle.Check(
        task=task,
        case=case,
        values=comparison[0].size,
        max_error=error,
        tolerance=tolerance,
        passed=error <= tolerance,
    )


def _max_error(actual: Array, expected: Array) -> float:
    """Return the largest difference; the largest float64 for a NaN or a one-sided infinity."""
    with np.errstate(invalid="ignore"):
        differences = np.where(
            actual == expected, 0.0, np.abs(actual.astype(np.float64) - expected)
        )
    worst = float(differences.max(initial=0.0))
    return worst if np.isfinite(worst) else float(np.finfo(np.float64).max)


def _log_probs(run: _RunGraph, case: SoftmaxCase) -> _ActualAndExpected:
    return run(hidden=case.hidden)[0], case.log_probs


def _cluster_log_probs(run: _RunGraph, case: SoftmaxCase) -> _ActualAndExpected:
    expected = case.cluster_log_probs
    assert expected is not None, "a family that offers the task has clusters"
    return run(hidden=case.hidden)[0], expected


def _target_log_prob(run: _RunGraph, case: SoftmaxCase) -> _ActualAndExpected:
    last = case.log_probs.shape[1] - 1
    target = np.concatenate([[0, last, last], case.rng.integers(0, last + 1, _NUM_PAIRS - 3)])
    row = case.rng.integers(0, len(case.hidden), _NUM_PAIRS)
    expected = case.log_probs[row, target]
    if (inner := case.inner_log_probs) is not None:
        rows, nodes = np.indices(inner.shape).reshape(2, -1)
        row, target = np.append(row, rows), np.append(target, last + 1 + nodes)
        expected = np.append(expected, inner[rows, nodes])
    return run(hidden=case.hidden, row=row, target=target)[0], expected


def _top_k(run: _RunGraph, case: SoftmaxCase) -> _ActualAndExpected:
    """Compare the k values, their order, the log p of the returned targets, and `exact`."""
    k = min(_TOP_K, case.log_probs.shape[1])
    limits = {"k": np.array([k]), "max_blocks": np.array([0])}
    log_prob, target, _, exact = run(hidden=case.hidden, **limits)
    expected = -np.sort(-case.log_probs, axis=1)[:, :k]
    of_returned = np.take_along_axis(case.log_probs, target, axis=1)
    zero_if_exact = np.where(exact, 0.0, np.nan)
    return np.stack([log_prob, log_prob, zero_if_exact[:, None] + log_prob]), np.stack(
        [expected, of_returned, log_prob.astype(np.float64)]
    )


def _sample(run: _RunGraph, case: SoftmaxCase) -> _ActualAndExpected:
    """Compare the log p of the drawn targets."""
    noise = case.rng.random((len(case.hidden), _NUM_SAMPLES, case.uniforms), dtype=np.float32)
    target, log_prob = run(hidden=case.hidden, noise=noise)
    return log_prob, np.take_along_axis(case.log_probs, target, axis=1)


_COMPARISONS: Mapping[str, Callable[[_RunGraph, SoftmaxCase], _ActualAndExpected]] = {
    "log_probs": _log_probs,
    "cluster_log_probs": _cluster_log_probs,
    "target_log_prob": _target_log_prob,
    "top_k": _top_k,
    "sample": _sample,
}
