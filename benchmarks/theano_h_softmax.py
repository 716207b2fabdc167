"""Times Theano 1.0.5's own h_softmax; runs with a Python that has it (3.8, numpy 1.19).

    python3.8 -m venv theano && theano/bin/pip install numpy==1.19.5 'scipy<1.6' Theano==1.0.5
    theano/bin/python benchmarks/theano_h_softmax.py --clusters 1000 --block 1000 --hidden 256

Prints JSON: {"1": microseconds a row, ...}. It shares no code with this project.
"""

import argparse
import json
import time

import numpy as np
import theano
import theano.tensor as T
from theano.tensor.nnet import h_softmax


def weights(clusters, block, hidden):
    rng = np.random.RandomState(0)
    chunk = rng.standard_normal(min(clusters * block * hidden, 1 << 22)).astype(np.float32)
    chunk *= np.float32(4 / np.sqrt(hidden))
    inside = np.resize(chunk, (clusters, hidden, block))
    return (
        rng.standard_normal((hidden, clusters)).astype(np.float32) / np.sqrt(hidden),
        np.zeros(clusters, np.float32),
        inside,
        np.zeros((clusters, block), np.float32),
    )


def compile_functions(shape, batch):
    clusters, block, _ = shape
    shared = [theano.shared(array.astype(np.float32)) for array in weights(*shape)]
    x, target = T.fmatrix("x"), T.lvector("target")

    def compile_for(size):
        probability = h_softmax(x, size, clusters * block, clusters, block, *shared, target=target)
        return theano.function([x, target], T.log(probability))

    return {size: compile_for(size) for size in batch}


def microseconds(function, rows, shape, seconds, rng):
    clusters, block, hidden = shape
    times, until = [], time.perf_counter() + seconds
    while len(times) < 5 or time.perf_counter() < until:
        x = rng.standard_normal((rows, hidden)).astype(np.float32)
        target = rng.randint(0, clusters * block, rows)
        started = time.perf_counter()
        function(x, target)
        times.append(time.perf_counter() - started)
    return float(np.median(times)) / rows * 1e6


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--clusters", type=int, default=1000)
    parser.add_argument("--block", type=int, default=1000)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 64, 256, 1024])
    parser.add_argument("--seconds", type=float, default=2.0)
    options = parser.parse_args()
    shape = (options.clusters, options.block, options.hidden)
    functions = compile_functions(shape, options.batches)
    rng = np.random.RandomState(1)
    figures = {n: microseconds(f, n, shape, options.seconds, rng) for n, f in functions.items()}
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
