"""The native kernels by family and task, as the tests build them from tensors."""

from functools import partial

from hsoftmax.runtime.native.adaptive import adaptive_model
from hsoftmax.runtime.native.levels import levels_model
from hsoftmax.runtime.native.task_kernels import SampleKernel, TargetLogProbKernel, TopKKernel
from hsoftmax.runtime.native.tree import tree_model


def _adaptive(kernel, library, tensors, cutoffs, threads=None):
    return kernel(library, adaptive_model(library, tensors, cutoffs), threads)


def _levels(kernel, library, tensors, *, num_targets, threads=None):
    return kernel(library, levels_model(library, tensors, num_targets), threads)


def _tree(kernel, library, tensors, compat):
    return kernel(library, tree_model(library, tensors, compat))


AdaptiveTargetLogProb, AdaptiveTopK, AdaptiveSample = (
    partial(_adaptive, kernel) for kernel in (TargetLogProbKernel, TopKKernel, SampleKernel)
)
LevelsTargetLogProb, LevelsTopK, LevelsSample = (
    partial(_levels, kernel) for kernel in (TargetLogProbKernel, TopKKernel, SampleKernel)
)
TreeTargetLogProb, TreeTopK = (
    partial(_tree, kernel) for kernel in (TargetLogProbKernel, TopKKernel)
)
