"""What is asked of each row, and the fields that its record will have."""

import math
from dataclasses import dataclass
from typing import Literal

from .bundle_info import Facts
from .choices import LARGEST_SEED, Name, Oov
from .errors import CallError

# How rows name what they ask about: one target, a list of them, or none at all.
Form = Literal["one", "many", "none"]
Kind = Literal["float32", "float64", "int64", "bool", "string"]


@dataclass(frozen=True, slots=True)
class Task:
    """The question, and its parameters; each says nothing to tasks that have no use for it.

    Attributes:
        k, max_blocks: top_k: how many targets; most blocks to open for a row, 0 for no limit
        num_samples, seed: sample
        oov, log_base: perplexity: what an unknown label does; the unit of log-probabilities
    """

    name: Name
    k: int = 10
    max_blocks: int = 0
    num_samples: int = 1
    seed: int = 0
    oov: Oov = "error"
    log_base: float | None = None  # None is e


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a record; `listed` where it is a list of that kind."""

    name: str
    kind: Kind
    listed: bool = False


def needs_target(task: Task) -> bool:
    """Whether a row without a target is wrong."""
    return task.name in ("target_log_prob", "perplexity")


def reads_target(task: Task) -> bool:
    """Whether a row's target is looked at."""
    return needs_target(task) or task.name == "probabilities"


def graph_of(task: Task, form: Form) -> str:
    """The bundle's graph that answers."""
    match task.name:
        case "target_log_prob" | "perplexity":
            return "target_log_prob"
        case "probabilities":
            return "log_probs" if form == "none" else "target_log_prob"
        case _:
            return task.name


def fields(task: Task, form: Form, facts: Facts) -> tuple[Field, ...]:
    """What a record holds beside `id`, in order."""
    labels = () if facts.labels is None else (Field("labels", "string", True),)
    drawn = (Field("targets", "int64", True), *labels, Field("probabilities", "float64", True))
    match task.name:
        case "target_log_prob":
            return (Field("log_prob", "float32", form == "many"),)
        case "probabilities":
            return (Field("probabilities", "float64", form != "one"),)
        case "log_probs":
            return (Field("log_probs", "float32", True),)
        case "top_k":
            return (*drawn, Field("exact", "bool"), Field("blocks", "int64"))
        case "sample":
            return drawn
        case "perplexity":
            return (Field("sequence", "string"), Field("log_prob", "float32"), Field("oov", "bool"))


def values_per_row(task: Task, form: Form, facts: Facts) -> int:
    """About how many numbers a row's record holds: what bounds a batch in memory."""
    if graph_of(task, form) == "log_probs":
        return facts.num_targets
    return {"top_k": 2 * task.k, "sample": 4 * task.num_samples}.get(task.name, 1)


def check(task: Task, form: Form, facts: Facts) -> None:
    """Raise CallError unless this bundle can answer this task."""
    graph = graph_of(task, form)
    if graph not in facts.graphs:
        raise CallError(f"task {task.name}: expected a bundle with {graph}, got {facts.name} with "
                        f"{', '.join(sorted(facts.graphs)) or 'none'}")  # fmt: skip
    _within("k", task.k if task.name == "top_k" else 1, 1, facts.num_targets)
    _within("num_samples", task.num_samples, 1, 2**20)
    _within("seed", task.seed, 0, LARGEST_SEED)
    _within("max_blocks", task.max_blocks, 0, 2**31)
    if task.log_base is not None and not (0 < task.log_base < math.inf and task.log_base != 1):
        raise CallError(f"log_base: expected a positive number that is not 1, got {task.log_base}")


def _within(name: str, got: int, least: int, most: int) -> None:
    if not least <= got <= most:
        raise CallError(f"{name}: expected {least} to {most}, got {got}")
