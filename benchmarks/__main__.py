"""Runs all benchmarks on this machine, writes their figures as JSON and draws a page from them.

    python -m benchmarks [--theano PYTHON3.8] [--torch PYTHON] [--only NAME ...] [--page]
    python -m benchmarks --only native --theano PYTHON3.8 --torch PYTHON

`--theano` and `--torch` name interpreters that have those libraries, and nothing of this project;
without them their columns are empty. `--only native` runs what compares the native kernels with
all others. Figures go to docs/performance/*.json; `--page` draws them into docs/performance.md, as
does a complete run.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

from . import page

FIGURES = Path("docs/performance")
_ONE_CORE = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
_LARGE_MODEL = ["--clusters", "1000", "--block", "1000"]

BENCHMARKS: dict[str, list[str]] = {
    "target_log_prob": ["target_log_prob", *_LARGE_MODEL],
    "target_log_prob_unequal": ["target_log_prob", *_LARGE_MODEL, "--jitter", "0.05"],
    "target_log_prob_zipf": ["target_log_prob", *_LARGE_MODEL, "--law", "zipf"],
    "target_log_prob_two_threads": [
        "target_log_prob", *_LARGE_MODEL, "--threads", "2", "--batches", "8,256",
    ],
    "target_log_prob_avx2": [
        "target_log_prob", *_LARGE_MODEL, "--instruction-set", "avx2", "--batches", "1,64",
    ],
    "target_log_prob_10k": [
        "target_log_prob", "--clusters", "100", "--block", "100", "--batches", "1,64,1024",
    ],
    "target_log_prob_100k": [
        "target_log_prob", "--clusters", "316", "--block", "316", "--batches", "1,64,1024",
    ],
    "target_log_prob_4m": [
        "target_log_prob", "--clusters", "2000", "--block", "2000", "--batches", "1,64,256",
    ],
    "adaptive": ["adaptive"],
    "top_k": ["top_k", *_LARGE_MODEL],
    "log_probs": ["log_probs", *_LARGE_MODEL],
    "profile": ["profile"],
    "precision": ["precision"],
    "growth": ["growth"],
    "growth_families": ["growth_families"],
    "fasttext": ["fasttext"],
    "gensim": ["gensim"],
    "memory": ["memory"],
    "accuracy": ["accuracy"],
    "cold_start": ["cold_start"],
    "score": ["score"],
    "score_text": ["score_text"],
}  # fmt: skip
GROUPS = {
    "native": [
        "target_log_prob", "target_log_prob_two_threads", "target_log_prob_avx2",
        "target_log_prob_10k", "target_log_prob_100k", "target_log_prob_4m", "fasttext", "gensim",
        "adaptive",
    ],
}  # fmt: skip
_LIBRARIES = {"target_log_prob": ("theano", "torch"), "adaptive": ("torch",)}  # by module
_TWO_THREADS = {"target_log_prob_two_threads", "memory", "cold_start", "score"}


def main() -> None:
    options = _options()
    FIGURES.mkdir(parents=True, exist_ok=True)
    pythons = {"theano": options.theano, "torch": options.torch}
    for name in _names(options.only):
        if not options.page:
            _run(name, BENCHMARKS[name], pythons)
    page.write(FIGURES)


def _names(only: list[str] | None) -> list[str]:
    """Return the benchmarks of these names and groups, all of them without any."""
    return [name for one in only or BENCHMARKS for name in GROUPS.get(one, [one])]


def _run(name: str, arguments: list[str], pythons: dict[str, str | None]) -> None:
    module, *rest = arguments
    rest += [
        f"--{library}={pythons[library]}"
        for library in _LIBRARIES.get(module, ())
        if pythons[library] is not None
    ]
    command = [sys.executable, "-W", "ignore", "-m", f"benchmarks.{module}", *rest]
    threads = {} if name in _TWO_THREADS else _ONE_CORE
    figures = ["--json", str(FIGURES / f"{name}.json")]
    print(f"\n=== {name}", flush=True)
    subprocess.run(
        [*_pin_to_core(name), *command, *figures], env={**os.environ, **threads}, check=True
    )


def _pin_to_core(name: str) -> list[str]:
    """Return a command prefix that pins a single-threaded benchmark to the last core."""
    cores = sorted(os.sched_getaffinity(0))
    return [] if name in _TWO_THREADS else ["taskset", "-c", str(cores[-1])]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--theano", help="a Python 3.8 with Theano 1.0.5")
    parser.add_argument("--torch", help="a Python with PyTorch")
    parser.add_argument("--only", nargs="+", choices=[*GROUPS, *BENCHMARKS], metavar="NAME")
    parser.add_argument("--page", action="store_true", help="draw what was measured before")
    return parser.parse_args()


if __name__ == "__main__":
    main()
