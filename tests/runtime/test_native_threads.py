"""Tests of native runs on several threads: equal bits, threads that end, runs that are stopped."""

import threading
from concurrent.futures import ThreadPoolExecutor
from time import monotonic, sleep

import numpy as np
import pytest

from hsoftmax.exporter.storage.tensors import stored_tensors
from hsoftmax.runtime.native import FreeThreads, NativeError, StopFlag
from tests.exporter.graphs.test_hierarchical_softmax import hidden_for, softmax
from tests.runtime.kernels import LevelsTargetLogProb

# Sizes at which a run wants several threads. One large block is divided between them.
MODELS = {
    "many blocks": {"sizes": ([40], [400] * 40), "hidden": 256},
    "many unequal blocks": {"sizes": ([40], list(range(300, 340))), "hidden": 256},
    "one large block": {"sizes": ([9001],), "hidden": 300},
    "one large block among small ones": {"sizes": ([9], [3, 1, 12001, 2, 7, 1, 3, 5, 8])},
    "one large block of rows": {"sizes": ([3], [3, 30_011, 7]), "hidden": 200},
}
PATIENCE = 60


def build(name):
    params = {"hidden": 201, "spread": 0.05} | MODELS[name]
    return softmax(*params.pop("sizes"), **params)


def kernel_of(library, model, threads, precision="fp32"):
    tensors = stored_tensors(model, precision)
    tensors = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    return LevelsTargetLogProb(library, tensors, num_targets=model.num_targets, threads=threads)


def feeds_of(model, batch, pairs):
    rng = np.random.default_rng(batch)
    return {
        "hidden": hidden_for(model, batch),
        "row": rng.integers(0, batch, pairs),
        "target": rng.integers(0, model.num_targets, pairs),
    }


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("name", MODELS)
def test_any_number_of_threads_gives_the_same_bits(library, name, precision):
    model = build(name)
    alone = kernel_of(library, model, None, precision)
    for batch, pairs in ((1, 1), (7, 30), (150, 400)):
        feeds = feeds_of(model, batch, pairs)
        (expected,) = alone(feeds)
        for count in (0, 1, 2, 3, 8, 100):
            threads = FreeThreads(count)
            (actual,) = kernel_of(library, model, threads, precision)(feeds)
            np.testing.assert_array_equal(actual, expected)
            assert threads.pointer[0] == count


def test_runs_at_once_share_the_threads(library):
    model, threads = build("many blocks"), FreeThreads(3)
    kernel, feeds = kernel_of(library, model, threads), feeds_of(model, 150, 400)
    (expected,) = kernel_of(library, model, None)(feeds)
    with ThreadPoolExecutor(8) as pool:
        for (actual,) in pool.map(kernel, [feeds] * 40):
            np.testing.assert_array_equal(actual, expected)
    assert threads.pointer[0] == 3


def begin(kernel, feeds, stop, results):
    def run():
        try:
            results.append(kernel(feeds, stop))
        except NativeError as error:
            results.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def wait_until(condition):
    end = monotonic() + PATIENCE
    while not condition():
        assert monotonic() < end
        sleep(0.0005)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_a_run_takes_the_free_threads_and_a_stop_flag_ends_it(library, count):
    """The run would take seconds on each of its threads."""
    model, threads, stop = build("one large block of rows"), FreeThreads(count), StopFlag()
    kernel, results = kernel_of(library, model, threads), []
    target = np.full(20_000 * count, 4)  # in the largest block
    feeds = {"hidden": hidden_for(model, len(target)), "row": np.arange(len(target))}
    thread = begin(kernel, feeds | {"target": target}, stop, results)
    wait_until(lambda: threads.pointer[0] == 0)
    stop.set(True)
    thread.join(PATIENCE)
    assert str(results[0]) == "the run was stopped"
    assert threads.pointer[0] == count
