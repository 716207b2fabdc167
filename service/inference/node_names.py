"""Finds the node of a query about the hierarchy, and describes nodes and children with labels."""

from collections.abc import Mapping

from hsoftmax.runtime.hierarchy import Children
from hsoftmax.service.errors import InvalidQuery, TargetOutOfRange, UnknownNode
from hsoftmax.service.repository.loaded_bundle import LoadedBundle

from .validation import unknown_label

Fields = Mapping[str, object]


def find_node(node: int | str | None, target: int | str | None, bundle: LoadedBundle) -> int | None:
    """Return the number of the node that a query asks for; None is the whole tree.

    Raises:
        InvalidQuery: both are given, or a label that does not fit.
        UnknownNode, UnknownLabel, TargetOutOfRange: the bundle does not have it.
    """
    if target is not None:
        if node is not None:
            raise InvalidQuery("node: expected no target beside it, got both")
        return bundle.hierarchy.parent(_target(target, bundle))
    if node is None:
        return None
    return _inner_node(node, bundle) if isinstance(node, str) else _known_node(node, bundle)


def _known_node(node: int, bundle: LoadedBundle) -> int:
    numbers = bundle.hierarchy.nodes
    if node not in numbers:
        raise UnknownNode(f"node: expected {numbers.start} to {numbers.stop - 1}, got {node}")
    if not bundle.hierarchy.has_node(node):
        raise UnknownNode(f"node: expected one that is on the path of a target, got {node}")
    return node


def _inner_node(label: str, bundle: LoadedBundle) -> int | None:
    number = bundle.bundle_info.find_target(label)
    if number is None:
        raise unknown_label("node", label, bundle)
    if number < bundle.num_targets:
        raise InvalidQuery(
            f"node: expected the label of an inner node, got {label[:60]!r} of target {number}: "
            "give it as target"
        )
    return bundle.inner_nodes[number - bundle.num_targets]


def _target(target: int | str, bundle: LoadedBundle) -> int:
    if isinstance(target, str):
        return _labelled_target(target, bundle)
    if not 0 <= target < bundle.num_targets:
        raise TargetOutOfRange(f"target: expected 0 to {bundle.num_targets - 1}, got {target}")
    return target


def _labelled_target(label: str, bundle: LoadedBundle) -> int:
    number = bundle.bundle_info.find_target(label)
    if number is None:
        raise unknown_label("target", label, bundle)
    if number >= bundle.num_targets:
        raise InvalidQuery(
            f"target: expected the label of a target, got {label[:60]!r} of an inner node: "
            "give it as node"
        )
    return number


def describe_node(node: int | None, bundle: LoadedBundle) -> Fields:
    """Return the fields of a node."""
    count = bundle.num_targets if node is None else bundle.hierarchy.num_targets(node)
    return {"node": node, **_names(bundle.node_labels.get(node, ())), "num_targets": count}


def describe_child(children: Children, i: int, bundle: LoadedBundle) -> Fields:
    """Return the fields of a child, a node or a target."""
    node, target = int(children.node[i]), int(children.target[i])
    above = bundle.node_labels.get(node, ())
    if target < 0:
        return {"node": node, **_names(above), "num_targets": int(children.num_targets[i])}
    if bundle.labels is None:
        return {"target": target, "num_targets": 1}
    label = bundle.labels[target]
    chain = {"chain": [*above, label]} if above else {}
    return {"target": target, "label": label, **chain, "num_targets": 1}


def _names(labels: tuple[str, ...]) -> Fields:
    """Return the label of a node, the upper one where several nodes are one place, and all."""
    if not labels:
        return {}
    return {"label": labels[0], **({"chain": list(labels)} if len(labels) > 1 else {})}
