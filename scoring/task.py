"""What is asked of each row, and the fields that its record will have."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from .bundle_info import BundleInfo
from .errors import CallError

TaskName = Literal["target_log_prob", "probabilities", "top_k", "log_probs", "sample", "perplexity"]
TASK_NAMES: tuple[TaskName, ...] = get_args(TaskName)

# How rows name what they ask about: one target, a list of them, or none at all.
TargetShape = Literal["one", "many", "none"]
OovPolicy = Literal["error", "exclude"]
ValueKind = Literal["float32", "float64", "int64", "bool", "string"]

MAX_SEED = 2**53 - 1  # what JSON carries through every client unharmed


@dataclass(frozen=True, slots=True)
class Task:
    """The question, and its parameters; each says nothing to tasks that have no use for it.

    Attributes:
        k, max_blocks: top_k: how many targets; most blocks to open for a row, 0 for no limit
        num_samples, seed: sample
        oov, log_base: perplexity: what an unknown label does; the unit of log-probabilities
    """

    name: TaskName
    k: int = 10
    max_blocks: int = 0
    num_samples: int = 1
    seed: int = 0
    oov: OovPolicy = "error"
    log_base: float | None = None  # None is e


@dataclass(frozen=True, slots=True)
class RecordField:
    """One field of a record; `listed` where it is a list of that kind."""

    name: str
    kind: ValueKind
    listed: bool = False


def needs_target(task: Task) -> bool:
    """Whether a row without a target is wrong."""
    return task.name in ("target_log_prob", "perplexity")


def reads_target(task: Task) -> bool:
    """Whether a row's target is looked at."""
    return needs_target(task) or task.name == "probabilities"


def graph_for_task(task: Task, target_shape: TargetShape) -> str:
    """The bundle's graph that answers."""
    match task.name:
        case "target_log_prob" | "perplexity":
            return "target_log_prob"
        case "probabilities":
            return "log_probs" if target_shape == "none" else "target_log_prob"
        case _:
            return task.name


def fields(
    task: Task, target_shape: TargetShape, bundle_info: BundleInfo
) -> tuple[RecordField, ...]:
    """What a record holds beside `id`, in order."""
    labels = () if bundle_info.labels is None else (RecordField("labels", "string", True),)
    drawn = (
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
            return (*drawn, RecordField("exact", "bool"), RecordField("blocks", "int64"))
        case "sample":
            return drawn
        case "perplexity":
            return (
                RecordField("sequence", "string"),
                RecordField("log_prob", "float32"),
                RecordField("oov", "bool"),
            )


def values_per_row(task: Task, target_shape: TargetShape, bundle_info: BundleInfo) -> int:
    """About how many numbers a row's record holds: what bounds a batch in memory."""
    if graph_for_task(task, target_shape) == "log_probs":
        return bundle_info.num_targets
    return {"top_k": 2 * task.k, "sample": 4 * task.num_samples}.get(task.name, 1)


def check_task(task: Task, target_shape: TargetShape, bundle_info: BundleInfo) -> None:
    """Raise CallError unless this bundle can answer this task."""
    graph = graph_for_task(task, target_shape)
    if graph not in bundle_info.graphs:
        raise CallError(
            f"task {task.name}: expected a bundle with {graph}, got {bundle_info.name} with "
            f"{', '.join(sorted(bundle_info.graphs)) or 'none'}"
        )
    _within("k", task.k if task.name == "top_k" else 1, 1, bundle_info.num_targets)
    _within("num_samples", task.num_samples, 1, 2**20)
    _within("seed", task.seed, 0, MAX_SEED)
    _within("max_blocks", task.max_blocks, 0, 2**31)
    if task.log_base is not None and not (0 < task.log_base < math.inf and task.log_base != 1):
        raise CallError(f"log_base: expected a positive number that is not 1, got {task.log_base}")


def _within(name: str, got: int, least: int, most: int) -> None:
    if not least <= got <= most:
        raise CallError(f"{name}: expected {least} to {most}, got {got}")
