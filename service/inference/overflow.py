"""Checks the outputs of a query's graph call: rows whose logits overflowed float32 are refused.

The endpoint of the operations calls it after each call, so a batch that the call shared with others
does not matter: each call is checked by its own rows.
"""

import numpy as np

from hsoftmax.models.arrays import Array
from hsoftmax.scoring.overflow import overflow_sentence, overflowed_rows
from hsoftmax.service.errors import InferenceFailed, LogitsOverflow

from .operation import Plan

# The graph input with a row's numbers, and the output that must be finite, by task.
_INPUT_AND_OUTPUT = {
    "block_dot": ("h", "output"),
    "children": ("hidden", "log_probs"),
    "cluster_log_probs": ("hidden", "log_probs"),
    "log_probs": ("hidden", "log_probs"),
}


def expect_no_overflow(plan: Plan, outputs: list[Array], first_row: int = 0) -> None:
    """Check the outputs of a call whose first row is row `first_row` of the query.

    Raises:
        LogitsOverflow: a result is not finite, and the numbers of its row are huge.
        InferenceFailed: a result is not finite although the row's numbers are ordinary.
    """
    assert plan.feeds is not None
    task, named = plan.session.task, dict(zip(plan.session.output_names, outputs, strict=True))
    input_name, output_name = _INPUT_AND_OUTPUT.get(task, ("hidden", "log_prob"))
    row = plan.feeds["row"] if task == "target_log_prob" else None
    absent: Array | np.bool_ | None = None
    if task == "top_k":  # a search that was cut short found fewer targets
        absent = ~named["exact"][:, None]
    elif task in ("cluster_log_probs", "children"):  # a cluster may have no targets
        absent = np.True_
    inputs = plan.feeds[input_name]
    bad_rows = overflowed_rows(named[output_name], inputs, row=row, absent=absent)
    if not len(bad_rows):
        return
    sentence = overflow_sentence(inputs[bad_rows[0]])
    if sentence is None:
        raise InferenceFailed("the graph gave a result that is not a finite number")
    field = "h" if input_name == "h" else "inputs"
    raise LogitsOverflow(f"{field} row {first_row + bad_rows[0]}: {sentence}")
