"""The tasks of an AdaptiveSoftmax on the device: the head, and the tails that rows need.

The head and each tail are levels of one block, which is read in place. The host knows which pairs
have a target in a tail, and opens a tail for their rows only.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from hsoftmax.models import AdaptiveSoftmax, ProjectedLayer
from hsoftmax.models.arrays import Array, Float32, Int64

from .block_level import BlockLevel
from .block_tasks import all_log_probs, draw, pick
from .line_plan import LevelShape
from .steps import DeviceArray, Feeds, Steps
from .top_k_rounds import Best, BlocksOfRows, no_best, open_blocks


@dataclass(frozen=True)
class ProjectedLevel:
    """A layer on the device; `projection` [width, H] comes before it, if there is one."""

    level: BlockLevel
    projection: DeviceArray | None
    width: int

    def states(self, hidden: Array) -> Array | DeviceArray:
        """Return what the layer reads of hidden rows [m, H]: [m, width], or zeros without width."""
        if self.width == 0:
            return np.zeros((len(hidden), 1), np.float32)
        if self.projection is None:
            return hidden
        feeds: Feeds = {"hidden": hidden, "projection": self.projection}
        (projected,) = self.level.steps.run_on_device("project", feeds)
        return projected


@dataclass(frozen=True)
class DeviceAdaptive:
    """A model on the device.

    Attributes:
        bounds: [tails + 1] the first target of each tail, then the number of targets
    """

    head: ProjectedLevel
    tails: tuple[ProjectedLevel, ...]
    bounds: Int64

    @property
    def shortlist(self) -> int:
        return int(self.bounds[0])

    def target_log_prob(self, feeds: Mapping[str, Array]) -> list[Array]:
        """hidden [B, H], row [P], target [P] -> log_prob [P]."""
        hidden, row, target = (feeds[name] for name in ("hidden", "row", "target"))
        if not len(row):
            return [np.zeros(0, np.float32)]
        tail = np.searchsorted(self.bounds, target, side="right") - 1
        head_row = np.where(tail < 0, target, self.shortlist + tail)
        total = pick(self.head.level, self.head.states(hidden), row, np.zeros_like(row), head_row)
        for i, pairs, states, local_row in self._tails_of(hidden, row, tail):
            position = target[pairs] - self.bounds[i]
            level = self.tails[i].level
            total[pairs] += pick(level, states, local_row, np.zeros_like(local_row), position)
        return [total]

    def log_probs(self, feeds: Mapping[str, Array]) -> list[Array]:
        """hidden [B, H] -> log_probs [B, N]."""
        hidden = feeds["hidden"]
        head = self._head_log_probs(hidden)
        parts = [head[:, : self.shortlist]]
        for i, tail in enumerate(self.tails):
            parent = head[:, [self.shortlist + i]]
            parts.append(all_log_probs(tail.level, tail.states(hidden), parent))
        return [np.concatenate(parts, axis=1)]

    def cluster_log_probs(self, feeds: Mapping[str, Array]) -> list[Array]:
        """hidden [B, H] -> log_probs [B, shortlist + tails]: every row of the head."""
        return [self._head_log_probs(feeds["hidden"])]

    def _head_log_probs(self, hidden: Array) -> Float32:
        no_parent = np.zeros((len(hidden), 1), np.float32)
        return all_log_probs(self.head.level, self.head.states(hidden), no_parent)

    def sample(self, feeds: Mapping[str, Array]) -> list[Array]:
        """hidden [B, H], noise [B, S, 2] in [0, 1) -> target, log_prob [B, S]."""
        hidden, noise = feeds["hidden"], feeds["noise"]
        shape = noise.shape[:2]
        row = np.repeat(np.arange(len(hidden)), shape[1])
        if not len(row):
            return [np.zeros(shape, np.int64), np.zeros(shape, np.float32)]
        head_uniform, tail_uniform = (noise[:, :, i].ravel() for i in range(2))
        target, total = draw(
            self.head.level, self.head.states(hidden), row, np.zeros_like(row), head_uniform
        )
        for i, pairs, states, local_row in self._tails_of(hidden, row, target - self.shortlist):
            level, block = self.tails[i].level, np.zeros_like(local_row)
            position, local = draw(level, states, local_row, block, tail_uniform[pairs])
            target[pairs] = self.bounds[i] + position
            total[pairs] += local
        return [target.reshape(shape), total.reshape(shape)]

    def _tails_of(
        self, hidden: Array, row: Int64, tail: Int64
    ) -> list[tuple[int, Int64, Array | DeviceArray, Int64]]:
        """Return for each tail that pairs need: its number, the pairs, states, rows of states."""
        needed = []
        for i, layer in enumerate(self.tails):
            pairs = np.flatnonzero(tail == i)
            if len(pairs):
                rows, local_row = np.unique(row[pairs], return_inverse=True)
                needed.append((i, pairs, layer.states(hidden[rows]), local_row))
        return needed

    def top_k(self, feeds: Mapping[str, Array]) -> list[Array]:
        """hidden [B, H], k [1], max_blocks [1] -> log_prob, target [B, k], blocks, exact [B].

        A block is a tail. A row opens its tails in descending order of their log p until there is
        proof, or its limit on blocks is reached; it goes on while it lacks k targets.
        """
        hidden, k, limit = feeds["hidden"], int(feeds["k"][0]), int(feeds["max_blocks"][0])
        best = no_best(len(hidden), k, int(self.bounds[-1]))
        opened = np.zeros(len(hidden), np.int64)
        if len(hidden):
            tail, bound = self._open_shortlist(hidden, best)
            for turn in range(len(self.tails)):
                lacks_targets = np.isneginf(best.log_prob[:, -1])
                may_open = lacks_targets | (limit == 0) | (turn < limit)
                rows = np.flatnonzero(~best.proven & may_open & (opened == turn))
                self._open_tails(hidden, rows, tail[rows, turn], bound[rows, turn:], best)
                opened[rows] += 1
        return [best.log_prob, best.target, opened, best.proven]

    def _open_shortlist(self, hidden: Array, best: Best) -> tuple[Int64, Float32]:
        """Start with the shortlist -> each row's tails in order, and log p of them, [B, tails]."""
        rows, tails, states = len(hidden), len(self.tails), self.head.states(hidden)
        row = np.repeat(np.arange(rows), tails)
        tail_row = np.tile(self.shortlist + np.arange(tails), rows)
        bound = pick(self.head.level, states, row, np.zeros_like(row), tail_row)
        bound = bound.reshape(rows, tails)
        order = np.argsort(-bound, axis=1, kind="stable")
        bound = np.take_along_axis(bound, order, axis=1)
        zero = np.zeros(rows, np.int64)
        blocks = BlocksOfRows(np.arange(rows), zero, zero.astype(np.float32), bound[:, 0])
        open_blocks(self._shortlist_level, states, blocks, best)
        return order, bound

    @property
    def _shortlist_level(self) -> BlockLevel:
        """The head without the rows of the tails, which are no targets."""
        allowed = np.zeros(self.shortlist + len(self.tails), np.float32)
        allowed[self.shortlist :] = -np.inf
        return replace(self.head.level, allowed=allowed)

    def _open_tails(
        self, hidden: Array, rows: Int64, tail: Int64, bound: Float32, best: Best
    ) -> None:
        """Open a tail for each of these rows; `bound` has its log p and those of the tails left."""
        no_rest = np.full((len(rows), 1), -np.inf, np.float32)
        bound = np.concatenate([bound, no_rest], axis=1)
        for i, layer in enumerate(self.tails):
            chosen = np.flatnonzero(tail == i)
            if len(chosen):
                of_tail, number = rows[chosen], np.arange(len(chosen))
                blocks = BlocksOfRows(
                    number, np.zeros_like(number), bound[chosen, 0], bound[chosen, 1]
                )
                part = Best(
                    best.log_prob[of_tail],
                    best.target[of_tail],
                    best.proven[of_tail],
                    best.no_target,
                )
                open_blocks(layer.level, layer.states(hidden[of_tail]), blocks, part)
                best.log_prob[of_tail], best.target[of_tail] = part.log_prob, part.target
                best.proven[of_tail] = part.proven


def put_adaptive(model: AdaptiveSoftmax, steps: Steps) -> DeviceAdaptive:
    """Copy a model to the device."""
    tails = tuple(
        _put_layer(tail, steps, int(first))
        for tail, first in zip(model.tails, model.bounds, strict=False)
    )
    return DeviceAdaptive(_put_layer(model.head, steps, 0), tails, model.bounds)


def _put_layer(layer: ProjectedLayer, steps: Steps, first_target: int) -> ProjectedLevel:
    """Copy a layer to the device; one without width gets a column of zeros, as its states do."""
    rows = layer.num_rows
    weight = layer.weight if layer.width else np.zeros((rows, 1), np.float32)
    bias = np.zeros(rows, np.float32) if layer.bias is None else layer.bias
    level = BlockLevel(
        steps,
        LevelShape(np.zeros(1, np.int64), np.array([rows]), weight.shape[1]),
        steps.put(weight),
        steps.put(bias),
        first_target=first_target,
    )
    projection = layer.projection if layer.width else None
    on_device = None if projection is None else steps.put(projection)
    return ProjectedLevel(level, on_device, layer.width)
