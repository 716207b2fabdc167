"""Runs all benchmarks on this machine, writes their figures as JSON and draws a page from them.

    python -m benchmarks [--theano PYTHON3.8] [--torch PYTHON] [--only NAME ...] [--page]

`--theano` and `--torch` name interpreters that have those libraries; without them their columns are
left out. Figures go to docs/performance/*.json; `--page` draws them into docs/performance.md, as
does a complete run.
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
_LARGE_MODEL = ["--clusters", "1000", "--block", "1000"]

BENCHMARKS: dict[str, list[str]] = {
    "target_log_prob": ["target_log_prob", *_LARGE_MODEL],
    "target_log_prob_unequal": ["target_log_prob", *_LARGE_MODEL, "--jitter", "0.05"],
    "target_log_prob_zipf": ["target_log_prob", *_LARGE_MODEL, "--law", "zipf"],
    "target_log_prob_two_threads": ["target_log_prob", *_LARGE_MODEL, "--threads", "2"],
    "target_log_prob_10k": ["target_log_prob", "--clusters", "100", "--block", "100"],
    "target_log_prob_100k": ["target_log_prob", "--clusters", "316", "--block", "316"],
    "target_log_prob_4m": [
        "target_log_prob", "--clusters", "2000", "--block", "2000", "--batches", "1,64,256,1024",
    ],
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
_TWO_THREADS = {"target_log_prob_two_threads", "memory", "cold_start", "score"}


def main() -> None:
    options = _options()
    FIGURES.mkdir(parents=True, exist_ok=True)
    for name in options.only or BENCHMARKS:
        if not options.page:
            _run(name, BENCHMARKS[name])
    if not options.page:
        _run_other_libraries(options.theano, options.torch)
    page.write(FIGURES)


def _run(name: str, arguments: list[str]) -> None:
    module, *rest = arguments
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


def _run_other_libraries(theano: str | None, torch: str | None) -> None:
    """Run the benchmarks of libraries that need their own interpreter; they print JSON."""
    for python, script in ((theano, "theano_h_softmax"), (torch, "pytorch_eager")):
        if python is None:
            print(f"\n=== {script}: skipped, no interpreter was named")
            continue
        command = [*_pin_to_core(script), python, "-I", "-W", "ignore", f"benchmarks/{script}.py"]
        process = subprocess.run(
            command, env={**os.environ, **_ONE_CORE}, check=True, stdout=subprocess.PIPE, text=True
        )
        print(f"\n=== {script}\n{process.stdout}")
        figures = json.loads(process.stdout.splitlines()[-1])
        (FIGURES / f"{script}.json").write_text(json.dumps(figures, indent=1) + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--theano", help="a Python 3.8 with Theano 1.0.5")
    parser.add_argument("--torch", help="a Python with PyTorch")
    parser.add_argument("--only", nargs="+", choices=list(BENCHMARKS), metavar="NAME")
    parser.add_argument("--page", action="store_true", help="draw what was measured before")
    return parser.parse_args()


if __name__ == "__main__":
    main()
