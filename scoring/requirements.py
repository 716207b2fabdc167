"""The requirements that a task puts on the rows of a batch, and the types of a row's fields."""

from dataclasses import dataclass
from typing import Literal

from .bundle_info import BundleInfo
from .choices import OovPolicy
from .task import Task, needs_target, reads_target

RowId = str | int | None
TargetOrLabel = int | float | str  # an integral float is a target, too

# one: exactly one target; any: one target or a list; absent: a target is an error;
# ignored: targets are not read
TargetRule = Literal["one", "any", "absent", "ignored"]


@dataclass(frozen=True, slots=True)
class RowRequirements:
    """The requirements that a task puts on each row."""

    bundle_info: BundleInfo
    targets: TargetRule
    oov: OovPolicy = "error"


def row_requirements(
    task: Task, full_distribution: bool, bundle_info: BundleInfo
) -> RowRequirements:
    """Returns the requirements of a task, of which `probabilities` may ask for all targets."""
    if not reads_target(task):
        return RowRequirements(bundle_info, "ignored")
    if full_distribution and not needs_target(task):
        return RowRequirements(bundle_info, "absent")
    if task.name == "perplexity":
        return RowRequirements(bundle_info, "one", task.oov)
    return RowRequirements(bundle_info, "any")
