"""Times Theano 1.0.5's own h_softmax; runs with a Python that has it (3.8, numpy 1.19).

    python3.8 -m venv theano && theano/bin/pip install numpy==1.19.5 'scipy<1.6' Theano==1.0.5
    python -m benchmarks.target_log_prob --theano theano/bin/python

It shares no code with this project. See `worker`: each line is a number of rows, and the answer the
microseconds of one call with new inputs.
"""

import argparse
import sys
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
        rng.standard_normal((hidden, clusters)).astype(np.float32) / np.float32(np.sqrt(hidden)),
        np.zeros(clusters, np.float32),
        inside,
        np.zeros((clusters, block), np.float32),
    )


def compile_functions(shape, batches):
    clusters, block, _ = shape
    shared = [theano.shared(array, borrow=True) for array in weights(*shape)]
    x, target = T.fmatrix("x"), T.lvector("target")

    def compile_for(size):
        probability = h_softmax(x, size, clusters * block, clusters, block, *shared, target=target)
        return theano.function([x, target], T.log(probability))

    return {size: compile_for(size) for size in batches}


def microseconds(function, rows, shape, rng):
    clusters, block, hidden = shape
    x = rng.standard_normal((rows, hidden)).astype(np.float32)
    target = rng.randint(0, clusters * block, rows)
    started = time.perf_counter()
    function(x, target)
    return (time.perf_counter() - started) * 1e6


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--clusters", type=int, default=1000)
    parser.add_argument("--block", type=int, default=1000)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 64, 256, 1024])
    options = parser.parse_args()
    shape = (options.clusters, options.block, options.hidden)
    functions = compile_functions(shape, options.batches)
    rng = np.random.RandomState(1)
    print("ready", flush=True)
    for line in sys.stdin:
        rows = int(line)
        print(microseconds(functions[rows], rows, shape, rng), flush=True)


if __name__ == "__main__":
    main()
