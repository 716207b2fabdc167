"""The native kernels by family and task, as the tests build them from tensors."""

from functools import partial

from hsoftmax.runtime.native.adaptive import adaptive_model
from hsoftmax.runtime.native.levels import levels_model
from hsoftmax.runtime.native.tasks import Sample, TargetLogProb, TopK
from hsoftmax.runtime.native.tree import tree_model


def _adaptive(task, library, tensors, cutoffs, threads=None):
    return task(library, adaptive_model(library, tensors, cutoffs), threads)


def _levels(task, library, tensors, *, num_targets, threads=None):
    return task(library, levels_model(library, tensors, num_targets), threads)


def _tree(task, library, tensors, compat):
    return task(library, tree_model(library, tensors, compat))


AdaptiveTargetLogProb, AdaptiveTopK, AdaptiveSample = (
    partial(_adaptive, task) for task in (TargetLogProb, TopK, Sample)
)
LevelsTargetLogProb, LevelsTopK, LevelsSample = (
    partial(_levels, task) for task in (TargetLogProb, TopK, Sample)
)
TreeTargetLogProb, TreeTopK = (partial(_tree, task) for task in (TargetLogProb, TopK))
