"""Runs the tasks of a two-level model with PyTorch on a GPU, eagerly and without TF32.

Inputs and outputs are NumPy arrays. The blocks of targets are gathered and multiplied in one batch;
a full distribution is a Linear over all targets.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import linear

from hsoftmax.models.arrays import Array
from hsoftmax.runtime.sessions import Feeds

from .synthetic import WrittenModel

_MAX_ROWS_PER_CHUNK = 128  # rows of full distributions


@dataclass(frozen=True)
class DeviceWeights:
    """Two levels of equal blocks on the device: clusters [C, H], [C]; blocks [C, K, H], [C, K]."""

    clusters: Tensor
    clusters_bias: Tensor
    blocks: Tensor
    blocks_bias: Tensor


def runs(written: WrittenModel) -> dict[str, Callable[[Feeds], object]]:
    """Return a function for each compared task."""
    w = _weights(written)
    functions = {"target_log_prob": _target_log_prob, "top_k": _top_k, "log_probs": _log_probs}
    return {
        task: torch.inference_mode()(lambda feeds, function=function: function(w, feeds))
        for task, function in functions.items()
    }


def _weights(written: WrittenModel) -> DeviceWeights:
    top, last = written.model.levels
    count, hidden = len(top.bias), written.model.hidden_size
    return DeviceWeights(
        torch.from_numpy(top.weight).cuda(),
        torch.from_numpy(top.bias).cuda(),
        torch.from_numpy(last.weight).cuda().view(count, -1, hidden),
        torch.from_numpy(last.bias).cuda().view(count, -1),
    )


def _target_log_prob(w: DeviceWeights, feeds: Feeds) -> Array:
    hidden, target = _to_device(feeds, "hidden"), _to_device(feeds, "target")
    cluster, position = target // w.blocks.shape[1], target % w.blocks.shape[1]
    scores = torch.bmm(w.blocks[cluster], hidden[:, :, None])[:, :, 0] + w.blocks_bias[cluster]
    inside = torch.log_softmax(scores, 1).gather(1, position[:, None])
    return _to_host(_clusters(w, hidden).gather(1, cluster[:, None]) + inside)


def _top_k(w: DeviceWeights, feeds: Feeds) -> list[Array]:
    k = int(feeds["k"][0])
    parts = [
        torch.topk(_full_log_probs(w, chunk), k)
        for chunk in _to_device(feeds, "hidden").split(_MAX_ROWS_PER_CHUNK)
    ]
    return [_to_host(torch.cat(one)) for one in zip(*parts, strict=True)]


def _log_probs(w: DeviceWeights, feeds: Feeds) -> Array:
    return _to_host(_full_log_probs(w, _to_device(feeds, "hidden")))


def _full_log_probs(w: DeviceWeights, hidden: Tensor) -> Tensor:
    scores = linear(hidden, w.blocks.flatten(0, 1), w.blocks_bias.flatten())
    inside = torch.log_softmax(scores.view(len(hidden), len(w.blocks), -1), 2)
    return (inside + _clusters(w, hidden)[:, :, None]).flatten(1)


def _clusters(w: DeviceWeights, hidden: Tensor) -> Tensor:
    return torch.log_softmax(linear(hidden, w.clusters, w.clusters_bias), 1)


def _to_device(feeds: Feeds, name: str) -> Tensor:
    return torch.from_numpy(feeds[name]).cuda()


def _to_host(result: Tensor) -> Array:
    array: Array = result.cpu().numpy()
    return array
