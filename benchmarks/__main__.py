"""Measure this machine: every question, its figures as JSON, tables and plots as a page.

    python -m benchmarks [--theano PYTHON3.8] [--torch PYTHON] [--only NAME ...] [--page]

`--theano` and `--torch` name interpreters that have those libraries; without them their columns are
left out. Figures go to docs/performance/*.json; `--page` draws them into docs/performance.md, as
does a whole run.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from . import page

FIGURES = Path("docs/performance")
_ONE_CORE = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
_LARGE = ["--clusters", "1000", "--block", "1000"]

QUESTIONS: dict[str, list[str]] = {
    "target_log_prob": ["target_log_prob", *_LARGE],
    "target_log_prob_unequal": ["target_log_prob", *_LARGE, "--jitter", "0.05"],
    "target_log_prob_zipf": ["target_log_prob", *_LARGE, "--law", "zipf"],
    "target_log_prob_two_threads": ["target_log_prob", *_LARGE, "--threads", "2"],
    "target_log_prob_10k": ["target_log_prob", "--clusters", "100", "--block", "100"],
    "target_log_prob_100k": ["target_log_prob", "--clusters", "316", "--block", "316"],
    "target_log_prob_4m": [
        "target_log_prob", "--clusters", "2000", "--block", "2000", "--batches", "1,64,256,1024",
    ],
    "top_k": ["top_k", *_LARGE],
    "log_probs": ["log_probs", *_LARGE],
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
}  # fmt: skip
_TWO_THREADS = {"target_log_prob_two_threads", "memory", "cold_start", "score"}


def main() -> None:
    told = _options()
    FIGURES.mkdir(parents=True, exist_ok=True)
    for name in told.only or QUESTIONS:
        if not told.page:
            _run(name, QUESTIONS[name])
    if not told.page:
        _run_others(told.theano, told.torch)
    page.write(FIGURES)


def _run(name: str, arguments: list[str]) -> None:
    module, *rest = arguments
    command = [sys.executable, "-W", "ignore", "-m", f"benchmarks.{module}", *rest]
    threads = {} if name in _TWO_THREADS else _ONE_CORE
    figures = ["--json", str(FIGURES / f"{name}.json")]
    print(f"\n=== {name}", flush=True)
    subprocess.run([*_pinned(name), *command, *figures], env={**os.environ, **threads}, check=True)


def _pinned(name: str) -> list[str]:
    """On one core, the last, where one thread is measured."""
    cores = sorted(os.sched_getaffinity(0))
    return [] if name in _TWO_THREADS else ["taskset", "-c", str(cores[-1])]


def _run_others(theano: str | None, torch: str | None) -> None:
    """Libraries that need an interpreter of their own print JSON."""
    for python, script in ((theano, "theano_h_softmax"), (torch, "pytorch_eager")):
        if python is None:
            print(f"\n=== {script}: skipped, no interpreter was named")
            continue
        command = [*_pinned(script), python, "-I", "-W", "ignore", f"benchmarks/{script}.py"]
        done = subprocess.run(
            command, env={**os.environ, **_ONE_CORE}, check=True, stdout=subprocess.PIPE, text=True
        )
        print(f"\n=== {script}\n{done.stdout}")
        found = json.loads(done.stdout.splitlines()[-1])
        (FIGURES / f"{script}.json").write_text(json.dumps(found, indent=1) + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--theano", help="a Python 3.8 with Theano 1.0.5")
    parser.add_argument("--torch", help="a Python with PyTorch")
    parser.add_argument("--only", nargs="+", choices=list(QUESTIONS), metavar="NAME")
    parser.add_argument("--page", action="store_true", help="draw what was measured before")
    return parser.parse_args()


if __name__ == "__main__":
    main()
