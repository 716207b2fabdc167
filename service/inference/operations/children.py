"""The operation `children`: the nodes below one node of the hierarchy, and their probabilities.

A client opens a hierarchy level by level with it: from the whole tree, over the nodes that the
answers name, down to the targets. The probability of a child is its marginal, so those of all
children sum to that of their node.
"""

from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from msgspec import UNSET, Meta, UnsetType

from hsoftmax.models.arrays import Array, Int64
from hsoftmax.runtime.hierarchy import Children
from hsoftmax.runtime.hierarchy.children_kernel import WHOLE_TREE
from hsoftmax.service.errors import InvalidQuery
from hsoftmax.service.inference.cost import children_cost
from hsoftmax.service.inference.node_names import describe_child, describe_node, find_node
from hsoftmax.service.inference.operation import (
    Operation,
    OperationResponse,
    Plan,
    Query,
    ResponseFields,
)
from hsoftmax.service.inference.output_values import field_name, to_values
from hsoftmax.service.inference.validation import expect_values, hidden_states
from hsoftmax.service.repository.loaded_bundle import LoadedBundle
from hsoftmax.service.settings import Settings

MAX_PAGE_CHILDREN = 10_000
_DEFAULT_PAGE_CHILDREN = 100


class ChildrenQuery(Query, frozen=True, kw_only=True):
    """A node, and a page of its children. Without a node it is the whole tree."""

    node: Annotated[
        int | str | None,
        Meta(description="a number of an answer, or the label of an inner node of a tree; "
             "null or absent is the whole tree"),
    ] = None  # fmt: skip
    target: Annotated[
        int | str | None,
        Meta(description="in place of `node`: a target, or its label, whose parent is meant"),
    ] = None
    order: Annotated[
        Literal["hierarchy", "probability"],
        Meta(description="`hierarchy`: as the bundle has them; `probability`: the likeliest first, "
             "for a single row"),
    ] = "hierarchy"  # fmt: skip
    start: Annotated[
        int, Meta(description="first child of the page", extra_json_schema={"minimum": 0})
    ] = 0
    limit: Annotated[
        int,
        Meta(
            description="most children of the page",
            extra_json_schema={"minimum": 1, "maximum": MAX_PAGE_CHILDREN},
        ),
    ] = _DEFAULT_PAGE_CHILDREN


class HierarchyNode(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A node of the hierarchy, or a target."""

    node: Annotated[
        int | UnsetType | None,
        Meta(description="to be asked for as `node`; null is the whole tree; absent for a target"),
    ] = UNSET
    target: Annotated[int | None, Meta(description="absent for a node")] = None
    label: str | None = None
    chain: Annotated[
        list[str] | None,
        Meta(description="the labels of nodes that are each the only child of the one before"),
    ] = None
    num_targets: Annotated[int, Meta(description="targets below it; 1 for a target")]


_Numbers = list[list[float | None]]


class ChildrenAnswer(OperationResponse, kw_only=True, omit_defaults=True):
    """The way to the node and a page of its children; one row of numbers for each row."""

    path: Annotated[
        list[HierarchyNode],
        Meta(description="from the whole tree to the node, which is the last"),
    ]
    children: list[HierarchyNode]
    total: Annotated[int, Meta(description="children on all pages")]
    next: Annotated[int | None, Meta(description="the `start` of the next page, null at the end")]
    path_probabilities: _Numbers | None = None
    path_log_probabilities: _Numbers | None = None
    probabilities: _Numbers | None = None
    log_probabilities: _Numbers | None = None


def plan(query: ChildrenQuery, bundle: LoadedBundle, settings: Settings) -> Plan:
    """Plan the blocks on the path of the node, and that of its children."""
    session = bundle.children_session
    _expect_page(query)
    node = find_node(query.node, query.target, bundle)
    states = hidden_states(query.inputs, bundle, settings)
    rows = len(states)
    if query.order == "probability" and rows > 1:
        raise InvalidQuery(f"order: expected hierarchy for several rows, got {query.order}")
    children, path = bundle.hierarchy.children(node), bundle.hierarchy.path(node)
    width = 1 + len(path) + len(children)
    expect_values(rows, width, settings)
    return Plan(
        session=session,
        feeds={"hidden": states, "node": np.array([WHOLE_TREE if node is None else node])},
        rows=rows,
        cost=children_cost(bundle, rows, node),
        values=rows * width,
        finish=lambda outputs: _fields(outputs[0], (None, *path), children, query, bundle),
    )


def _expect_page(query: ChildrenQuery) -> None:
    """Raise InvalidQuery for a page out of range."""
    if query.start < 0:
        raise InvalidQuery(f"start: expected 0 or more, got {query.start}")
    if not 1 <= query.limit <= MAX_PAGE_CHILDREN:
        raise InvalidQuery(f"limit: expected 1 to {MAX_PAGE_CHILDREN}, got {query.limit}")


def _fields(
    log_probs: Array,
    path: tuple[int | None, ...],
    children: Children,
    query: ChildrenQuery,
    bundle: LoadedBundle,
) -> ResponseFields:
    of_path, of_children = log_probs[:, : len(path)], log_probs[:, len(path) :]
    shown = _page(of_children, query)
    end = query.start + len(shown)
    name = field_name(query.log)
    return {
        "path": [describe_node(node, bundle) for node in path],
        f"path_{name}": _values(of_path, query, bundle),
        "children": [describe_child(children, i, bundle) for i in shown.tolist()],
        name: _values(of_children[:, shown], query, bundle),
        "total": len(children),
        "next": end if end < len(children) else None,
    }


def _page(log_probs: Array, query: ChildrenQuery) -> Int64:
    """Return which children the page has."""
    total = log_probs.shape[1]
    order = np.arange(total)
    if query.order == "probability":
        order = np.argsort(-log_probs[0], kind="stable")
    page: Int64 = order[min(query.start, total) : query.start + query.limit]
    return page


def _values(log_probs: Array, query: ChildrenQuery, bundle: LoadedBundle) -> Any:  # noqa: ANN401
    values = to_values(np.ascontiguousarray(log_probs), query.log, bundle.max_log_prob)
    return np.ascontiguousarray(values)


CHILDREN = Operation(
    name="children",
    summary="The children of a node of the hierarchy, and their probabilities",
    query=ChildrenQuery,
    response=ChildrenAnswer,
    example={"inputs": [[0.1, -0.2, 0.3]], "node": None, "limit": 100},
    plan=plan,
    guess_task=lambda body: "target_log_prob",  # which every softmax has, in the same lane
    prepare=lambda bundle: bundle.hierarchy,
    has_matrix=False,
)
