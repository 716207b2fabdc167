"""Tasks: the computation for each row, its parameters, and the fields of the resulting records."""

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from .bundle_info import BundleInfo
from .choices import DEFAULT_K, MAX_SEED, OovPolicy, TaskName
from .errors import CallError
from .threshold import searched_targets

# How rows name their targets: one target each, a list each, or none.
TargetShape = Literal["one", "many", "none"]
ValueKind = Literal["float32", "float64", "int64", "bool", "string"]


@dataclass(frozen=True, slots=True)
class Task:
    """A task and its parameters. A task ignores the parameters of other tasks.

    Attributes:
        k, max_blocks: top_k: the number of targets, None for 10 or all targets if there are fewer;
            the most blocks to open for a row, 0 for no limit
        threshold: top_k: only targets with a probability above it, None for no threshold
        num_samples, seed: sample
        oov, log_base: perplexity: whether an unknown label is an error or is left out; the base of
            log-probabilities, None for e
    """

    name: TaskName
    k: int | None = None
    max_blocks: int = 0
    num_samples: int = 1
    seed: int = 0
    oov: OovPolicy = "error"
    log_base: float | None = None
    threshold: float | None = None


@dataclass(frozen=True, slots=True)
class RecordField:
    """One field of a record; `listed` if its values are lists of that kind."""

    name: str
    kind: ValueKind
    listed: bool = False


def default_k(num_targets: int) -> int:
    """Returns the number of targets that `top_k` returns if nothing else is asked for."""
    return min(DEFAULT_K, num_targets)


def with_default_k(task: Task, bundle_info: BundleInfo) -> Task:
    """Returns the task with a `k` for this bundle, if it has none."""
    return replace(task, k=k_of(task, bundle_info))


def k_of(task: Task, bundle_info: BundleInfo) -> int:
    """Returns the number of targets that `top_k` returns for each row.

    Other tasks have `DEFAULT_K`, as it is in the identity of jobs that older versions began.
    """
    if task.k is not None:
        return task.k
    return default_k(bundle_info.num_targets) if task.name == "top_k" else DEFAULT_K


def searched_k(task: Task, bundle_info: BundleInfo) -> int:
    """Returns the number of targets that the search of `top_k` returns for each row.

    With a threshold it may be fewer than k, or one more, which says that there are more than k.
    """
    k = k_of(task, bundle_info)
    return searched_targets(k, task.threshold, bundle_info.num_targets, bundle_info.max_log_prob)


def with_searched_k(task: Task, bundle_info: BundleInfo) -> Task:
    """Returns the task as the search of `top_k` runs it; other tasks as they are."""
    if task.threshold is None or task.name != "top_k":
        return task
    return replace(task, k=searched_k(task, bundle_info))


def needs_target(task: Task) -> bool:
    """True if a row without a target is an error."""
    return task.name in ("target_log_prob", "perplexity")


def reads_target(task: Task) -> bool:
    """True if the task reads a row's target."""
    return needs_target(task) or task.name == "probabilities"


def graph_for_task(task: Task, target_shape: TargetShape) -> str:
    """Returns the name of the bundle's graph that the task runs; `hidden` runs none."""
    match task.name:
        case "target_log_prob" | "perplexity":
            return "target_log_prob"
        case "probabilities":
            return "log_probs" if target_shape == "none" else "target_log_prob"
        case _:
            return task.name


def record_fields(
    task: Task, target_shape: TargetShape, bundle_info: BundleInfo
) -> tuple[RecordField, ...]:
    """Returns the fields of a record except `id`, in order."""
    labels = () if bundle_info.labels is None else (RecordField("labels", "string", True),)
    targets = (
        RecordField("targets", "int64", True),
        *labels,
        RecordField("probabilities", "float64", True),
    )
    match task.name:
        case "target_log_prob":
            return (RecordField("log_prob", "float32", target_shape == "many"),)
        case "probabilities":
            return (RecordField("probabilities", "float64", target_shape != "one"),)
        case "log_probs":
            return (RecordField("log_probs", "float32", True),)
        case "top_k":
            search = (RecordField("exact", "bool"), RecordField("blocks", "int64"))
            cut = () if task.threshold is None else (RecordField("truncated", "bool"),)
            return (*targets, *search, *cut)
        case "sample":
            return targets
        case "hidden":
            return (RecordField("hidden", "float32", True),)
        case "perplexity":
            return (
                RecordField("sequence", "string"),
                RecordField("log_prob", "float32"),
                RecordField("oov", "bool"),
            )


def values_per_row(task: Task, target_shape: TargetShape, bundle_info: BundleInfo) -> int:
    """Estimates how many numbers a row's record holds, to bound the memory of a batch."""
    if graph_for_task(task, target_shape) == "log_probs":
        return bundle_info.num_targets
    match task.name:
        case "top_k":
            return 2 * searched_k(task, bundle_info)
        case "sample":
            return 4 * task.num_samples
        case "hidden":
            return bundle_info.hidden_size
        case _:
            return 1


def check_task(task: Task, target_shape: TargetShape, bundle_info: BundleInfo) -> None:
    """Raises CallError unless the bundle supports the task with these parameters."""
    graph = graph_for_task(task, target_shape)
    if task.name != "hidden" and graph not in bundle_info.graphs:
        raise CallError(
            f"task {task.name}: expected a bundle with {graph}, got {bundle_info.name} with "
            f"{', '.join(sorted(bundle_info.graphs)) or 'none'}"
        )
    _expect_integer(
        "k", k_of(task, bundle_info) if task.name == "top_k" else 1, 1, bundle_info.num_targets
    )
    if task.threshold is not None:
        expect_threshold(task.threshold)
    _expect_integer("num_samples", task.num_samples, 1, 2**20)
    _expect_integer("seed", task.seed, 0, MAX_SEED)
    _expect_integer("max_blocks", task.max_blocks, 0, 2**31)
    if task.log_base is None:
        return
    expect_number("log_base", task.log_base)
    if not (0 < task.log_base < math.inf and task.log_base != 1):
        raise CallError(f"log_base: expected a positive number that is not 1, got {task.log_base}")


def expect_threshold(threshold: float) -> None:
    """Raises CallError unless it is a probability."""
    _expect_range("threshold", threshold, 0, 1)


def expect_number(name: str, value: object) -> None:
    """Raises CallError unless it is a number, as a caller in Python may give anything."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise CallError(f"{name}: expected a number, got {value!r}")


def _expect_integer(name: str, value: int, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise CallError(f"{name}: expected an integer, got {value!r}")
    _expect_range(name, value, low, high)


def _expect_range(name: str, value: float, low: int, high: int) -> None:
    expect_number(name, value)
    if not low <= value <= high:
        raise CallError(f"{name}: expected {low} to {high}, got {value}")
