"""Random models that lie, and random inputs: the kernels compute or refuse, and never read outside.

`make test-native` runs this for minutes with a library that is compiled with the sanitizers of
addresses and of undefined behaviour; a plain library would not show a read outside.
"""

import os
from time import monotonic

import numpy as np
import pytest

from hsoftmax.featurizers.vocabulary import build_vocabulary, vocabulary_arrays
from hsoftmax.runtime.native import FreeThreads, NativeError, TextArrays, TextKernel
from tests.runtime.kernels import (
    AdaptiveSample,
    AdaptiveTargetLogProb,
    AdaptiveTopK,
    LevelsSample,
    LevelsTargetLogProb,
    LevelsTopK,
    TreeTargetLogProb,
    TreeTopK,
)

SECONDS = float(os.environ.get("NATIVE_FUZZ_SECONDS", "2"))
_WEIGHT_TYPES = (np.float32, np.float16, np.int8)  # and bfloat16
_HOSTILE = np.array([-1, 0, 1, 2, 2**31 - 1, -(2**31), 2**62, -(2**62), 2**63 - 1, -(2**63)])


def integers(rng, limit, count, hostile):
    """Numbers in 0..limit - 1, one of which is hostile if asked."""
    numbers = rng.integers(0, max(1, limit), count)
    if hostile and count:
        numbers[rng.integers(count)] = rng.choice(_HOSTILE)
    return numbers


def floats(rng, *shape):
    numbers = rng.normal(size=shape) * 10.0 ** rng.integers(-3, 6)
    if rng.random() < 0.1 and numbers.size:
        numbers.ravel()[rng.integers(numbers.size)] = rng.choice([np.nan, np.inf, -np.inf, 3e38])
    with np.errstate(over="ignore"):
        return numbers.astype(np.float32)


def bfloats(numbers):
    """The bits of bfloat16, cut off."""
    return (numbers.view(np.uint32) >> 16).astype(np.uint16)


def random_weight(rng, rows, columns):
    """A weight of any type."""
    kind = rng.choice(4)
    weight = np.nan_to_num(floats(rng, rows, columns)).clip(-100, 100)
    return bfloats(weight) if kind == 3 else weight.astype(_WEIGHT_TYPES[kind])


def random_scale(rng, name, weight, rows):
    """The scales of an int8 weight, one of which may be missing; nothing for other types."""
    if weight.dtype != np.int8:
        return {}
    return {f"{name}.scale": floats(rng, rows - int(rng.random() < 0.05))}


def random_level(rng, index, blocks, hidden):
    """Tensors of a level whose offsets are right when the kernel is built."""
    if rng.random() < 0.5:
        sizes = np.full(blocks, rng.integers(1, 40))
    else:
        sizes = rng.integers(1, 20, blocks)
    rows = int(sizes.sum())
    weight = random_weight(rng, rows, hidden)
    if (sizes == sizes[0]).all() and rng.random() < 0.7:
        shape = (blocks, int(sizes[0]), hidden)
        weight = np.ascontiguousarray(weight.reshape(shape).transpose(0, 2, 1))
    name = f"level{index}"
    tensors = {
        f"{name}.weight": weight,
        f"{name}.bias": floats(rng, rows),
        f"{name}.offsets": np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
    }
    return tensors | random_scale(rng, name, weight, rows), rows


def random_masks(rng, tensors):
    """Rows of each level that may not be drawn; perhaps none may."""
    biases = {name: bias for name, bias in tensors.items() if name.endswith("bias")}
    return {
        name.replace("bias", "alive"): rng.choice([0, -np.inf], len(bias)).astype(np.float32)
        for name, bias in biases.items()
    }


def random_noise(rng, batch, steps):
    """Uniform numbers of up to three samples, one of which may be out of range."""
    numbers = rng.random((batch, rng.integers(0, 4), steps), dtype=np.float32)
    if rng.random() < 0.1 and numbers.size:
        numbers.ravel()[rng.integers(numbers.size)] = rng.choice([np.nan, 1.0, -0.5, np.inf])
    return numbers


def try_levels(library, rng):
    hidden, blocks, tensors = int(rng.integers(1, 40)), 1, {}
    for index in range(rng.integers(1, 4)):
        level, blocks = random_level(rng, index, blocks, hidden)
        tensors |= level
    targets = int(rng.integers(1, blocks + 1))
    if rng.random() < 0.5:
        tensors["target_rows"] = rng.permutation(blocks)[:targets]
    if rng.random() < 0.3:
        tensors["row_target"] = rng.integers(-2, targets + 2, blocks)
    if rng.random() < 0.2:
        tensors |= random_masks(rng, tensors)
    threads = FreeThreads(int(rng.integers(-1, 5)))
    match rng.integers(3):
        case 0:
            kernel = LevelsTopK(library, tensors, num_targets=targets)
        case 1:
            kernel = LevelsTargetLogProb(library, tensors, num_targets=targets, threads=threads)
        case _:
            kernel = LevelsSample(library, tensors, num_targets=targets, threads=threads)
    if rng.random() < 0.3:  # the file changes under a kernel that has checked it
        name = str(rng.choice([name for name in tensors if name.endswith(("offsets", "rows"))]))
        tensors[name][rng.integers(len(tensors[name]))] = rng.choice(_HOSTILE)
    batch, pairs = int(rng.integers(0, 30)), int(rng.integers(0, 80))
    levels = sum(name.endswith("bias") for name in tensors)
    return kernel(
        {
            "hidden": floats(rng, batch, hidden),
            "noise": random_noise(rng, batch, levels),
            "k": integers(rng, targets + 2, 1, rng.random() < 0.1),
            "max_blocks": integers(rng, blocks + 2, 1, rng.random() < 0.1),
            "row": integers(rng, batch, pairs, rng.random() < 0.2),
            "target": integers(rng, targets, pairs, rng.random() < 0.2),
        }
    )


def try_tree(library, rng):
    nodes, depth = int(rng.integers(1, 40)), int(rng.integers(1, 8))
    targets, hidden = int(rng.integers(1, 40)), int(rng.integers(1, 40))
    weight = random_weight(rng, nodes, hidden) if rng.random() < 0.7 else floats(rng, nodes, hidden)
    tensors = {
        "syn1": weight,
        "path": integers(rng, nodes, targets * depth, rng.random() < 0.3)
        .astype(np.int32)
        .reshape(targets, depth),
        "sign": rng.integers(-1, 2, (targets, depth)).astype(np.int8),
        "children": rng.integers(-targets, nodes, (nodes, 2)).astype(np.int32),
    }
    tensors |= random_scale(rng, "syn1", weight, nodes)
    if rng.random() < 0.5:
        tensors["bias"] = floats(rng, nodes)
    if rng.random() < 0.3:
        tensors["children"].ravel()[rng.integers(2 * nodes)] = rng.choice([2**31 - 1, -(2**31)])
    compat = "fasttext" if rng.random() < 0.3 else "exact"
    batch, pairs = int(rng.integers(0, 10)), int(rng.integers(0, 40))
    feeds = {"hidden": floats(rng, batch, hidden)}
    if rng.random() < 0.5:
        feeds["row"] = integers(rng, batch, pairs, rng.random() < 0.2)
        feeds["target"] = integers(rng, targets, pairs, rng.random() < 0.2)
        return TreeTargetLogProb(library, tensors, compat)(feeds)
    feeds["k"] = integers(rng, targets + 2, 1, rng.random() < 0.1)
    feeds["max_blocks"] = integers(rng, nodes + 2, 1, rng.random() < 0.1)
    return TreeTopK(library, tensors, compat)(feeds)


def random_text_arrays(rng):
    words = list({rng.bytes(rng.integers(1, 6)) for _ in range(rng.integers(0, 30))})
    text, offsets, slots = map(np.array, vocabulary_arrays(build_vocabulary([b"</s>", *words])))
    columns, buckets = int(rng.integers(1, 20)), int(rng.integers(1, 50))
    rows = len(words) + 1 + buckets - int(rng.random() < 0.2)
    parts, size = int(rng.integers(1, 5)), int(rng.integers(1, 6))
    quantised = rng.random() < 0.5
    norms = quantised and rng.random() < 0.5
    kept = int(rng.integers(0, buckets + 1))
    pruned = rng.permutation(buckets)[:kept].astype(np.int32)
    return TextArrays(
        text=text, offsets=offsets, slots=slots, words=len(words) + 1,
        min_chars=int(rng.integers(0, 4)), max_chars=int(rng.choice([0, 3, 6, 99])),
        max_words=int(rng.integers(0, 4)), buckets=buckets,
        pruned=(np.sort(pruned), pruned) if rng.random() < 0.4 else None,
        shape=(rows, parts * size if quantised else columns),
        weight=None if quantised else floats(rng, rows, columns),
        codes=rng.integers(0, 256, (rows, parts), dtype=np.uint8) if quantised else None,
        centroids=floats(rng, parts, 256, size) if quantised else None,
        norm_codes=rng.integers(0, 256, rows, dtype=np.uint8) if norms else None,
        norms=floats(rng, 256) if norms else None,
    )  # fmt: skip


def try_text(library, rng):
    arrays = random_text_arrays(rng)
    kernel = TextKernel(library, arrays)
    if rng.random() < 0.3:  # the file changes under a kernel that has checked it
        changed = [arrays.offsets, arrays.slots, *(arrays.pruned or ())][rng.integers(2)]
        changed[rng.integers(len(changed))] = rng.choice([-5, -1, 0, 3, 2**31 - 1, -(2**31)])
    pieces = [b"</s>", b"__label__x", b" ", b"\0", b"\t", "été".encode(), b"\xff\x80", b"abc"]
    lines = [
        b"".join(pieces[i] for i in rng.integers(0, len(pieces), rng.integers(0, 20)))
        for _ in range(rng.integers(0, 6))
    ]
    return kernel(lines)


def random_layer(rng, rows, hidden):
    """Tensors of a layer, by their parts; the projection may be of no width."""
    width = int(rng.integers(0, 40)) if rng.random() < 0.5 else hidden
    weight = random_weight(rng, rows, width) if rng.random() < 0.7 else floats(rng, rows, width)
    layer = {"weight": weight}
    if width != hidden or rng.random() < 0.3:
        layer["projection"] = floats(rng, width, hidden)
    if rng.random() < 0.5:
        layer["bias"] = floats(rng, rows)
    return layer


def try_adaptive(library, rng):
    hidden, tails = int(rng.integers(1, 40)), int(rng.integers(0, 5))
    sizes = [tails + int(rng.integers(0, 60)), *rng.integers(1, 200, tails).tolist()]
    names = ["head", *(f"tail{i}" for i in range(tails))]
    layers = {n: random_layer(rng, rows, hidden) for n, rows in zip(names, sizes, strict=True)}
    tensors = {f"{n}.{part}": t for n, layer in layers.items() for part, t in layer.items()}
    for name, layer in layers.items():
        tensors |= random_scale(rng, name, layer["weight"], len(layer["weight"]))
    cutoffs = np.cumsum([sizes[0] - tails, *sizes[1:-1]])[:tails]
    if rng.random() < 0.1:
        cutoffs = integers(rng, 100, tails, True)
    if rng.random() < 0.1:
        name = str(rng.choice(list(tensors)))
        tensors[name] = tensors[name][: rng.integers(len(tensors[name]) + 1)].copy()
    targets, batch = max(1, sum(sizes) - tails), int(rng.integers(0, 80))
    pairs = int(rng.integers(0, 100))
    kind = [AdaptiveTopK, AdaptiveTargetLogProb, AdaptiveSample][rng.integers(3)]
    kernel = kind(library, tensors, cutoffs.tolist(), FreeThreads(int(rng.integers(0, 4))))
    return kernel(
        {
            "hidden": floats(rng, batch, hidden),
            "noise": random_noise(rng, batch, 2),
            "k": integers(rng, targets + 2, 1, rng.random() < 0.1),
            "max_blocks": integers(rng, tails + 2, 1, rng.random() < 0.1),
            "row": integers(rng, batch, pairs, rng.random() < 0.2),
            "target": integers(rng, targets, pairs, rng.random() < 0.2),
        }
    )


@pytest.mark.timeout(2 * SECONDS + 60)
@pytest.mark.parametrize("attempt", [try_levels, try_tree, try_adaptive, try_text])
def test_kernels_compute_or_refuse(library, attempt):
    end, computed, refused = monotonic() + SECONDS / 3, 0, 0
    while monotonic() < end or not (computed and refused):
        try:
            attempt(library, np.random.default_rng(computed + refused))
            computed += 1
        except NativeError:
            refused += 1
    print(f"{attempt.__name__}: {computed} computed, {refused} refused")
