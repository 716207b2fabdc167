"""Visit each distinct block of a level once, with all the rows that ask for it.

    for block in distinct(blocks):
        answers[pairs of block] = choose(log_softmax(logits(block, calls)), pairs of block)

Which way is quickest depends on how much is asked, and is chosen in the graph:

* A few pairs are answered one by one: to sort them is some forty small operators, the price of a
  third of a block, and the second pair to ask for a block finds it in cache.
* Where few of the blocks are asked for, each is copied out of the level and read from cache.
* Where many are, but each for a few rows, all blocks pass by in place, and those that nobody asks
  for are skipped.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import spox.opset.ai.onnx.v21 as op
from spox import Var

from .grouping import Calls, Table, sort_out, table_of
from .hidden_states import States
from .levels import Block, LevelWeights, logits, logits_apart
from .ops import arange, column, concat, full, integer, ints, length, scalar, vector, yes

_FEW = 8  # pairs
_SKIP = 1.7  # microseconds to pass over a block,
_COPY = 4.0  # to begin to copy one,
_COPIED = 30_000.0  # and bytes of it that are copied in each of them
_MOST_CALLS = 8  # for one block: more rows are a better product together, from a copy
_MOST_PAIRS = 64  # for one block, above which a line for each block would be mostly empty


@dataclass(frozen=True)
class Visit:
    """One block, opened for some calls."""

    level: LevelWeights
    block: Var  # [1] which of the level
    log_probs: Var  # [calls, K] within the block, perhaps with axes of one before or between

    def bounds(self) -> tuple[Var, Var]:
        """[1] the block's first row, and the row after its last."""
        return self.level.bounds(self.block)

    def by_call(self) -> Var:
        """[calls, K]."""
        size = self.level.level.block_size
        return self.log_probs if size is None else op.reshape(self.log_probs, ints(-1, size))


# The call [P] of each pair within its block -> what `Choose` is to know of them, [P] each.
About = Callable[[Var], Sequence[Var]]
# A visit, and the same of its W pairs -> their answers, [W, ...]. W is alike for all blocks of a
# query: places beyond a block's pairs hold zeros, and what is answered for them is thrown away.
Choose = Callable[..., Sequence[Var]]


def visit_blocks(
    level: LevelWeights,
    hidden: Var,
    row: Var,
    block: Var,
    about: About,
    choose: Choose,
    *,
    types: Sequence[type] | None = None,
    few: bool = False,
) -> tuple[Var, ...]:
    """The answers of `choose` for pairs (row [P], block [P]), each [P, ...].

    Args:
        types: of the answers, where each is [W]: float or int. Only such can pass in place.
        few: whether there are but a few pairs, known beforehand
    """
    query = _Query(level, hidden, row, block, about, choose)
    if few:
        return tuple(_one_by_one(query))
    return tuple(
        op.if_(
            op.less_or_equal(length(block), ints(_FEW)),
            then_branch=lambda: _one_by_one(query),
            else_branch=lambda: _shared(query, types if level.is_transposed else None),
        )
    )


@dataclass(frozen=True)
class _Query:
    level: LevelWeights
    hidden: Var
    row: Var
    block: Var
    about: About
    choose: Choose

    def answers(self, block: Var, logits: Var, pairs: Sequence[Var]) -> list[Var]:
        """For the pairs of a block, of which this is known."""
        return list(self.choose(Visit(self.level, block, op.log_softmax(logits)), *pairs))


def _one_by_one(query: _Query) -> list[Var]:
    """Pairs as they come."""
    states = query.level.states(op.gather(query.hidden, query.row))

    def body(block: Var, at: Var, *pair: Var) -> Sequence[Var]:
        state = states.between(at, op.add(at, ints(1)))
        return query.answers(block, logits(query.level.copied(block), state), pair)

    at = arange(scalar(states.count()))
    pairs = query.about(op.mul(at, integer(0)))
    return [_rows(answers) for answers in _for_each((query.block, at, *pairs), body)]


def _for_each(vectors: Sequence[Var], body: Callable[..., Sequence[Var]]) -> Sequence[Var]:
    """Stack what `body` makes of each element [1] of vectors [n]; n may be 0, as Scan's may not.

    spox builds a value in the innermost scope that uses it, so what only a body reads would be
    computed in every pass. The number of passes reads all vectors, which keeps them outside.
    """

    def one(i: Var, going: Var) -> list[Var]:
        at = vector(i)
        return [yes(), *body(*(op.gather(x, at) for x in vectors))]

    return op.loop(scalar(op.min([length(x) for x in vectors])), body=one)


def _shared(query: _Query, types: Sequence[type] | None) -> list[Var]:
    """Each distinct block once, with all its calls."""
    calls = sort_out(query.row, query.block, length(query.hidden))
    states = query.level.states(op.gather(query.hidden, calls.row))
    if types is None:
        return _copied(query, calls, states)
    return list(
        op.if_(
            _may_pass(query.level, calls),
            then_branch=lambda: _in_passing(query, calls, states, types),
            else_branch=lambda: _copied(query, calls, states),
        )
    )


def _may_pass(level: LevelWeights, calls: Calls) -> Var:
    """Whether to skip other blocks costs less than to copy those that are asked for."""
    enough = math.ceil(level.level.num_blocks * _SKIP / (_COPY + level.block_bytes / _COPIED))
    many = op.greater_or_equal(length(calls.blocks.value), ints(enough))
    for counted, most in (
        (calls.blocks.times, _MOST_PAIRS),
        (op.sub(calls.after, calls.first), _MOST_CALLS),
    ):
        narrow = op.less_or_equal(op.reduce_max(counted, keepdims=1), ints(most))
        many = op.and_(many, narrow)
    return many


def _copied(query: _Query, calls: Calls, states: States) -> list[Var]:
    table = table_of(calls)

    def body(block: Var, first: Var, after: Var, *pairs: Var) -> Sequence[Var]:
        some = states.between(first, after)
        return query.answers(block, logits(query.level.copied(block), some), pairs)

    lines = _lines(query, calls, states, table)
    stacked = op.scan(lines, body=body, num_scan_inputs=len(lines))
    place = table.place(calls.blocks.number)
    return [op.gather(_rows(answers), place) for answers in stacked]


def _in_passing(query: _Query, calls: Calls, states: States, types: Sequence[type]) -> list[Var]:
    """All blocks pass by, each with the number of its line where it has one."""
    level, table = query.level, table_of(calls)
    nothing = [full(table.width, kind()) for kind in types]
    # Reading their length here keeps them out of the body, and so for the lines: see _for_each.
    table = replace(table, width=op.min([length(x) for x in nothing]))
    lines = _lines(query, calls, states, table)

    def body(is_asked: Var, line: Var, weight: Var) -> Sequence[Var]:
        def visit() -> list[Var]:
            block, first, after, *pairs = (op.gather(x, line) for x in lines)
            by_row = (op.gather(part, block) for part in level.by_block()[1:])
            some = states.between(first, after)
            return query.answers(block, logits_apart(Block(weight, *by_row), some), pairs)

        return op.if_(is_asked, then_branch=visit, else_branch=lambda: nothing)

    blocks = level.level.num_blocks
    numbers = arange(scalar(op.min([length(x) for x in lines])))
    line = op.scatter_elements(full(ints(blocks), -1), calls.blocks.value, numbers)
    is_asked = op.greater_or_equal(line, integer(0))
    weight = level.tiles(blocks, level.level.block_size or 0)[0]
    stacked = op.scan([is_asked, line, weight], body=body, num_scan_inputs=3)
    return [op.gather(vector(answers), table.place(query.block)) for answers in stacked]


def _lines(query: _Query, calls: Calls, states: States, table: Table) -> list[Var]:
    """For each distinct block: which it is, its first call, the one after its last, its pairs."""
    # Reading the states' number here keeps them out of a body, see _for_each.
    after = op.min([calls.after, states.count()])
    bounds = map(column, (calls.blocks.value, calls.first, after))
    return [*bounds, *map(table.of, query.about(calls.call))]


def _rows(stacked: Var) -> Var:
    """[d, W, ...] -> [d * W, ...]."""
    return op.reshape(stacked, concat(ints(-1), op.shape(stacked, start=2)))
