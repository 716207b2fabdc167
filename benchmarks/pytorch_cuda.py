"""PyTorch's own ways to the same on a GPU, eager, without TF32; NumPy in, NumPy out.

Targets have their blocks gathered and multiplied in one batch; whole distributions are a Linear
over all targets.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import linear

from hsoftmax.models.arrays import Array
from hsoftmax.runtime.sessions import Feeds

from .synthetic import Written

_AT_ONCE = 128  # rows of whole distributions


@dataclass(frozen=True)
class Weights:
    """Two levels of equal blocks, on the device: clusters [C, H], [C]; blocks [C, K, H], [C, K]."""

    clusters: Tensor
    clusters_bias: Tensor
    blocks: Tensor
    blocks_bias: Tensor


def runs(made: Written) -> dict[str, Callable[[Feeds], object]]:
    """One for each task that is compared."""
    w = _weights(made)
    ways = {"target_log_prob": _target_log_prob, "top_k": _top_k, "log_probs": _log_probs}
    return {
        task: torch.inference_mode()(lambda feeds, way=way: way(w, feeds))
        for task, way in ways.items()
    }


def _weights(made: Written) -> Weights:
    top, last = made.model.levels
    count, hidden = len(top.bias), made.model.hidden_size
    return Weights(
        torch.from_numpy(top.weight).cuda(),
        torch.from_numpy(top.bias).cuda(),
        torch.from_numpy(last.weight).cuda().view(count, -1, hidden),
        torch.from_numpy(last.bias).cuda().view(count, -1),
    )


def _target_log_prob(w: Weights, feeds: Feeds) -> Array:
    hidden, target = _given(feeds, "hidden"), _given(feeds, "target")
    cluster, position = target // w.blocks.shape[1], target % w.blocks.shape[1]
    scores = torch.bmm(w.blocks[cluster], hidden[:, :, None])[:, :, 0] + w.blocks_bias[cluster]
    inside = torch.log_softmax(scores, 1).gather(1, position[:, None])
    return _taken(_clusters(w, hidden).gather(1, cluster[:, None]) + inside)


def _top_k(w: Weights, feeds: Feeds) -> list[Array]:
    k = int(feeds["k"][0])
    parts = [torch.topk(_whole(w, some), k) for some in _given(feeds, "hidden").split(_AT_ONCE)]
    return [_taken(torch.cat(one)) for one in zip(*parts, strict=True)]


def _log_probs(w: Weights, feeds: Feeds) -> Array:
    return _taken(_whole(w, _given(feeds, "hidden")))


def _whole(w: Weights, hidden: Tensor) -> Tensor:
    scores = linear(hidden, w.blocks.flatten(0, 1), w.blocks_bias.flatten())
    inside = torch.log_softmax(scores.view(len(hidden), len(w.blocks), -1), 2)
    return (inside + _clusters(w, hidden)[:, :, None]).flatten(1)


def _clusters(w: Weights, hidden: Tensor) -> Tensor:
    return torch.log_softmax(linear(hidden, w.clusters, w.clusters_bias), 1)


def _given(feeds: Feeds, name: str) -> Tensor:
    return torch.from_numpy(feeds[name]).cuda()


def _taken(answer: Tensor) -> Array:
    array: Array = answer.cpu().numpy()
    return array
