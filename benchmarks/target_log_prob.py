"""Compares a target query with the textbook graph, Theano, PyTorch, NumPy, and only reading.

    python -m benchmarks.target_log_prob --batches 1,8,64,256,1024
    python -m benchmarks.target_log_prob --theano PYTHON3.8 --torch PYTHON

`x NAME` is NAME's time over ours: above 1, ours is faster. Each row has one target, uniform or
drawn by Zipf's law (the t-th has a probability in proportion to 1 / t, like words). Microseconds
are per row. All run in turns, after each has queried every block once:

    ours        the native kernel over float32, or the graph where there is none
    bf16, int8  the native kernel over weights in fewer bits, hidden states in float32
    graph       the portable graph over float32
    textbook    the graph that gathers each target's block for one batched product
    theano      Theano 1.0.5's own h_softmax, with `--theano`: an interpreter that has it
    torch       PyTorch eager, gather + bmm, with `--torch`: an interpreter that has it
    numpy       one matrix-vector product per row, without copies
    read        passes once over each distinct block of the batch
    floor       reads, and multiplies the clusters: no kernel can do less
"""

import argparse
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial

import numpy as np
import onnxruntime

from hsoftmax import bundle
from hsoftmax.models.arrays import Array
from hsoftmax.runtime.native import Kernel, load_library

from . import textbook
from .measure import medians_of_turns, report, timed
from .options import integers, sizes, two_level_options
from .synthetic import WrittenModel, two_level_in
from .worker import Worker

_MAX_TEXTBOOK_BYTES = 4 << 30  # it copies every block of the batch: larger batches are left out
_PRECISIONS: tuple[bundle.Precision, ...] = ("fp32", "bf16", "int8")
_OTHERS = ("textbook", "theano", "torch", "graph", "numpy", "floor", "read", "bf16", "int8")

WrittenModels = Mapping[bundle.Precision, WrittenModel]


def main() -> None:
    options = _options()
    shape = (options.clusters, options.block, options.hidden)
    title = f"target_log_prob: {sizes(options)}, {options.threads} threads"
    with (
        two_level_in(_PRECISIONS, *shape, jitter=options.jitter) as written,
        _workers(options) as workers,
        _instruction_set(options.instruction_set) as name,
    ):
        rows = [_measure(written, workers, batch, options) for batch in options.batches]
    report(f"{title}, {name}, us per row", rows, options.json)


@contextmanager
def _workers(options: argparse.Namespace) -> Iterator[dict[str, Worker]]:
    """Start the other interpreters that were named."""
    shape = [f"--{name}={getattr(options, name)}" for name in ("clusters", "block", "hidden")]
    batches = ["--batches", *map(str, options.batches)]
    with ExitStack() as stack:
        workers = {}
        if options.theano:
            theano = Worker(options.theano, "theano_h_softmax", *shape, *batches)
            workers["theano"] = stack.enter_context(theano)
        if options.torch:
            threads = f"--threads={options.threads}"
            torch = Worker(options.torch, "pytorch_eager", *shape, threads)
            workers["torch"] = stack.enter_context(torch)
        yield workers


@contextmanager
def _instruction_set(name: str | None) -> Iterator[str]:
    """Use these instructions, or the best ones; return their name."""
    library = load_library()
    if isinstance(library, str):
        yield "no native kernels"
        return
    if name is not None and not library.functions.hsoftmax_use(name.encode()):
        raise SystemExit(f"instruction set: expected one of this CPU, got {name}")
    yield name or library.instruction_set
    library.functions.hsoftmax_use(library.instruction_set.encode())


def _measure(
    written: WrittenModels, workers: Mapping[str, Worker], batch: int, options: argparse.Namespace
) -> dict[str, object]:
    model = written["fp32"].model
    rng = np.random.default_rng(batch)
    hidden = rng.standard_normal((batch, model.hidden_size), dtype=np.float32)
    draw_targets = partial(_TARGET_LAWS[options.law](rng), model.num_targets, batch)
    runs = {name: timed(run) for name, run in _runs(written, hidden, options.threads).items()}
    _query_each_block(runs.values(), model.levels[-1].offsets[:-1], batch)
    runs |= {
        name: lambda target, worker=worker: worker.microseconds(len(target))
        for name, worker in workers.items()
    }
    repeats = options.repeats or int(np.clip(2000 // batch, 5, 101))
    times = medians_of_turns(runs, draw_targets, repeats=repeats)
    per_row = {name: times[name] / batch if name in times else "-" for name in ("ours", *_OTHERS)}
    ratios = {
        f"x {name}": times[name] / times["ours"] if name in times else "-" for name in _OTHERS
    }
    return {"batch": batch, **ratios, **per_row}


def _query_each_block(
    runs: Iterable[Callable[[Array], object]], first_targets: Array, batch: int
) -> None:
    """Ask each run for a target of each block.

    Runs map the weights each on its own, and the first read of a page takes longer.
    """
    for start in range(0, len(first_targets), batch):
        target = np.resize(first_targets[start : start + batch], batch)
        for run in runs:
            run(target)


def _runs(
    written: WrittenModels, hidden: Array, threads: int
) -> dict[str, Callable[[Array], object]]:
    """Return by name the functions that compute one target per row."""
    row, model = np.arange(len(hidden)), written["fp32"]

    def run_query(session: onnxruntime.InferenceSession, target: Array) -> object:
        return session.run(None, {"hidden": hidden, "row": row, "target": target})

    def run_kernel(kernel: Kernel, target: Array) -> object:
        return kernel({"hidden": hidden, "row": row, "target": target})

    runs = {"graph": partial(run_query, model.session("target_log_prob", threads))}
    kernels = {name: one.kernel("target_log_prob", threads) for name, one in written.items()}
    runs |= {
        "ours" if name == "fp32" else name: partial(run_kernel, kernel)
        for name, kernel in kernels.items()
        if kernel is not None
    }
    runs.setdefault("ours", runs["graph"])

    largest = int(model.model.levels[1].block_sizes.max())
    if hidden.nbytes * largest <= _MAX_TEXTBOOK_BYTES:
        graph = model.open_graph("textbook", textbook.target_log_prob(model), threads)
        runs["textbook"] = partial(run_query, graph)
    runs["read"] = partial(read_blocks, model)
    runs["floor"] = partial(read_and_multiply_clusters, model, hidden)
    runs["numpy"] = partial(multiply_blocks, model, hidden)
    return runs


def read_blocks(written: WrittenModel, target: Array) -> None:
    """Pass once over each distinct block; the maximum as integers is the fastest pass."""
    for number in np.unique(written.model.levels[1].block_of_row[target]):
        written.block(number).view(np.int32).max()


def read_and_multiply_clusters(written: WrittenModel, hidden: Array, target: Array) -> None:
    hidden @ written.model.levels[0].weight.T
    read_blocks(written, target)


def multiply_blocks(written: WrittenModel, hidden: Array, target: Array) -> None:
    top, level = written.model.levels
    hidden @ top.weight.T
    for state, number in zip(hidden, level.block_of_row[target], strict=True):
        block = written.block(number)
        _ = state @ block if len(block) == len(state) else block @ state


def _uniform(rng: np.random.Generator) -> Callable[[int, int], Array]:
    return lambda targets, count: rng.integers(0, targets, count)


def _zipf(rng: np.random.Generator) -> Callable[[int, int], Array]:
    """Draw by inversion: the integral of 1 / t is log t."""
    return lambda targets, count: np.minimum(
        (targets + 1.0) ** rng.random(count) - 1, targets - 1
    ).astype(np.int64)


_TARGET_LAWS = {"uniform": _uniform, "zipf": _zipf}


def _options() -> argparse.Namespace:
    parser = two_level_options(__doc__)
    parser.add_argument("--jitter", type=float, default=0.0, help="block sizes vary by this part")
    parser.add_argument("--law", choices=list(_TARGET_LAWS), default="uniform")
    parser.add_argument("--batches", type=integers, default=[1, 8, 64, 256, 1024, 4096])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=0)
    parser.add_argument("--instruction-set", choices=["avx2", "avx512", "neon"])
    parser.add_argument("--theano", metavar="PYTHON", help="a Python 3.8 with Theano 1.0.5")
    parser.add_argument("--torch", metavar="PYTHON", help="a Python with PyTorch")
    return parser.parse_args()


if __name__ == "__main__":
    main()
