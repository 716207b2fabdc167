"""Visits each distinct block of a level once, with all pairs (hidden row, block) that need it.

    for block in distinct(blocks):
        results[pairs of block] = select(log_softmax(logits(block, rows)), pairs of block)

The graph chooses one of three methods by the numbers of pairs and blocks:

* A few pairs are visited one by one. Grouping them takes about forty small operators, as long as a
  third of a block, and the second pair of a block finds the block in cache.
* If few of the level's blocks are needed, each is copied out of the level and read from cache.
* If many blocks are needed, each by few rows, a Scan passes over all blocks in place and skips the
  blocks that are not needed.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import spox.opset.ai.onnx.v21 as op
from spox import Var

from .grouping import GroupedPairs, PairTable, group_pairs, pair_table
from .hidden_states import HiddenStates
from .level_weights import BlockWeights, LevelWeights, broadcast_logits, logits
from .ops import arange, column, concat, full, integer, ints, length, scalar, true, vector

_MAX_SINGLE_PAIRS = 8
_SKIP_US = 1.7  # time to skip a block in the Scan
_COPY_US = 4.0  # time to copy a block, besides the time for its bytes
_COPIED_BYTES_PER_US = 30_000.0
_MAX_SCAN_ROWS = 8  # logits rows per block: more are faster as one product with a copy
_MAX_SCAN_PAIRS = 64  # per block: with more, the table of pairs by block would be mostly empty


@dataclass(frozen=True)
class BlockVisit:
    """One block, and its log-softmax for the hidden rows that need it."""

    level: LevelWeights
    block: Var  # [1] number of the block in its level
    log_probs: Var  # [logits rows, K], perhaps with further axes of size one

    def bounds(self) -> tuple[Var, Var]:
        """Return the block's first row and the row after its last, [1] each."""
        return self.level.bounds(self.block)

    def log_prob_matrix(self) -> Var:
        """Return log_probs as [logits rows, K]."""
        size = self.level.level.block_size
        return self.log_probs if size is None else op.reshape(self.log_probs, ints(-1, size))


# Logits row [P] of each pair within its block -> inputs of `Select`, [P] each.
PairInputs = Callable[[Var], Sequence[Var]]
# (visit, *inputs [W]) -> results [W, ...]. W is the same for all blocks of a query: the places
# after a block's last pair hold zeros, and their results are discarded.
Select = Callable[..., Sequence[Var]]


def visit_blocks(
    level: LevelWeights,
    hidden: Var,
    row: Var,
    block: Var,
    pair_inputs: PairInputs,
    select: Select,
    *,
    types: Sequence[type] | None = None,
    is_small: bool = False,
) -> tuple[Var, ...]:
    """Return the results of `select` for the pairs (row [P], block [P]), each [P, ...].

    Args:
        types: float or int for each result; only results of shape [W] can have types, and only
            with types can the Scan be used
        is_small: True if the caller knows that there are only a few pairs
    """
    query = _BlockQuery(level, hidden, row, block, pair_inputs, select)
    scan_types = types if level.is_transposed else None
    if is_small:
        return tuple(_visit_pair_by_pair(query))
    return tuple(
        op.if_(
            op.less_or_equal(length(block), ints(_MAX_SINGLE_PAIRS)),
            then_branch=lambda: _visit_pair_by_pair(query),
            else_branch=lambda: _visit_distinct_blocks(query, scan_types),
        )
    )


@dataclass(frozen=True)
class _BlockQuery:
    level: LevelWeights
    hidden: Var
    row: Var
    block: Var
    pair_inputs: PairInputs
    select: Select

    def results(self, block: Var, logits: Var, inputs: Sequence[Var]) -> list[Var]:
        """Return the results for the pairs of one block."""
        return list(self.select(BlockVisit(self.level, block, op.log_softmax(logits)), *inputs))


def _visit_pair_by_pair(query: _BlockQuery) -> list[Var]:
    states = query.level.states(op.gather(query.hidden, query.row))

    def body(block: Var, index: Var, *inputs: Var) -> Sequence[Var]:
        state = states.between(index, op.add(index, ints(1)))
        return query.results(block, logits(query.level.copy_block(block), state), inputs)

    index = arange(scalar(states.count()))
    inputs = query.pair_inputs(op.mul(index, integer(0)))
    return [_flatten(result) for result in _map_elements((query.block, index, *inputs), body)]


def _map_elements(vectors: Sequence[Var], body: Callable[..., Sequence[Var]]) -> Sequence[Var]:
    """Stack the results of `body` for each element [1] of vectors [n]; n may be 0, unlike in Scan.

    spox builds a value in the innermost scope that uses it, so a value that only the body reads
    would be computed in every iteration. The number of iterations depends on all vectors, which
    keeps them out of the body.
    """

    def step(i: Var, condition: Var) -> list[Var]:
        index = vector(i)
        return [true(), *body(*(op.gather(x, index) for x in vectors))]

    return op.loop(scalar(op.min([length(x) for x in vectors])), body=step)


def _visit_distinct_blocks(query: _BlockQuery, types: Sequence[type] | None) -> list[Var]:
    pairs = group_pairs(query.row, query.block, length(query.hidden))
    states = query.level.states(op.gather(query.hidden, pairs.row))
    if types is None:
        return _copy_blocks(query, pairs, states)
    return list(
        op.if_(
            _is_scan_cheaper(query.level, pairs),
            then_branch=lambda: _scan_blocks(query, pairs, states, types),
            else_branch=lambda: _copy_blocks(query, pairs, states),
        )
    )


def _is_scan_cheaper(level: LevelWeights, pairs: GroupedPairs) -> Var:
    """Return true if skipping the other blocks costs less than copying the needed ones."""
    copy_us = _COPY_US + level.block_bytes / _COPIED_BYTES_PER_US
    min_blocks = math.ceil(level.level.num_blocks * _SKIP_US / copy_us)
    is_cheaper = op.greater_or_equal(length(pairs.blocks.values), ints(min_blocks))
    for counts, limit in (
        (pairs.blocks.counts, _MAX_SCAN_PAIRS),
        (op.sub(pairs.end, pairs.start), _MAX_SCAN_ROWS),
    ):
        is_within = op.less_or_equal(op.reduce_max(counts, keepdims=1), ints(limit))
        is_cheaper = op.and_(is_cheaper, is_within)
    return is_cheaper


def _copy_blocks(query: _BlockQuery, pairs: GroupedPairs, states: HiddenStates) -> list[Var]:
    table = pair_table(pairs)

    def body(block: Var, start: Var, end: Var, *inputs: Var) -> Sequence[Var]:
        block_states = states.between(start, end)
        return query.results(block, logits(query.level.copy_block(block), block_states), inputs)

    columns = _block_columns(query, pairs, states, table)
    stacked = op.scan(columns, body=body, num_scan_inputs=len(columns))
    position = table.position(pairs.blocks.inverse)
    return [op.gather(_flatten(result), position) for result in stacked]


def _scan_blocks(
    query: _BlockQuery, pairs: GroupedPairs, states: HiddenStates, types: Sequence[type]
) -> list[Var]:
    """Scan over all blocks in place; `column_row` is -1 for a block that is not needed."""
    level, table = query.level, pair_table(pairs)
    empty = [full(table.width, result_type()) for result_type in types]
    # Reading their lengths keeps these values out of the body, and so for the columns below: see
    # _map_elements.
    table = replace(table, width=op.min([length(x) for x in empty]))
    columns = _block_columns(query, pairs, states, table)

    def body(is_needed: Var, column_row: Var, weight: Var) -> Sequence[Var]:
        def visit() -> list[Var]:
            block, start, end, *inputs = (op.gather(x, column_row) for x in columns)
            row_parts = (op.gather(part, block) for part in level.block_arrays()[1:])
            block_states = states.between(start, end)
            weights = BlockWeights(weight, *row_parts)
            return query.results(block, broadcast_logits(weights, block_states), inputs)

        return op.if_(is_needed, then_branch=visit, else_branch=lambda: empty)

    blocks = level.level.num_blocks
    indices = arange(scalar(op.min([length(x) for x in columns])))
    column_row = op.scatter_elements(full(ints(blocks), -1), pairs.blocks.values, indices)
    is_needed = op.greater_or_equal(column_row, integer(0))
    weight = level.tile_arrays(blocks, level.level.block_size or 0)[0]
    stacked = op.scan([is_needed, column_row, weight], body=body, num_scan_inputs=3)
    return [op.gather(vector(result), table.position(query.block)) for result in stacked]


def _block_columns(
    query: _BlockQuery, pairs: GroupedPairs, states: HiddenStates, table: PairTable
) -> list[Var]:
    """Return for each distinct block its number, its logits rows' start and end, its inputs."""
    # Reading the number of states keeps them out of a body, see _map_elements.
    end = op.min([pairs.end, states.count()])
    bounds = map(column, (pairs.blocks.values, pairs.start, end))
    return [*bounds, *map(table.fill, query.pair_inputs(pairs.logits_row))]


def _flatten(stacked: Var) -> Var:
    """[d, W, ...] -> [d * W, ...]."""
    return op.reshape(stacked, concat(ints(-1), op.shape(stacked, start=2)))
