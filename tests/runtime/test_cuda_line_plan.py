"""Laws of the plans for CUDA: a pair is answered once, blocks are shared, runs keep the bound."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsoftmax.runtime.cuda.line_plan import (
    MAX_CALLS,
    LevelShape,
    Lines,
    RunCost,
    plan_all,
    plan_pairs,
)

HIDDEN = 4


def level(sizes: list[int]) -> LevelShape:
    size = np.array(sizes)
    return LevelShape(np.cumsum([0, *sizes[:-1]]), size, HIDDEN)


LEVELS = st.one_of(
    st.builds(lambda blocks, size: level([size] * blocks), st.integers(1, 40), st.integers(1, 9)),
    st.lists(st.integers(1, 30), min_size=1, max_size=40).map(level),
)
COSTS = st.integers(1, 20_000).map(lambda most: RunCost(16, most))


@st.composite
def queries(draw):
    shape = draw(LEVELS)
    pairs = draw(st.integers(1, 150))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    row, block = rng.integers(0, 9, pairs), rng.integers(0, shape.num_blocks, pairs)
    if draw(st.booleans()):
        block = np.where(rng.random(pairs) < 0.8, block[0], block)
    return shape, row, block


def bytes_of(lines: Lines, cost: RunCost) -> int:
    copied = 0 if lines.in_place else lines.size * (HIDDEN + 1) * 4
    of_call = lines.size * cost.value_bytes + HIDDEN * 4
    return len(lines.block) * (copied + lines.num_calls * of_call)


@given(queries(), COSTS)
def test_every_pair_is_answered_once_at_its_block_and_row(query, cost):
    shape, row, block = query
    answered = np.zeros(len(row), np.int64)
    for lines in plan_pairs(row, block, shape, cost):
        answered[lines.pair] += 1
        line, call = np.divmod(lines.place, lines.num_calls)
        np.testing.assert_array_equal(lines.block[line], block[lines.pair])
        np.testing.assert_array_equal(lines.row[line, call], row[lines.pair])
        assert lines.row.shape == (len(lines.block), lines.num_calls)
    np.testing.assert_array_equal(answered, 1)


@given(queries(), COSTS)
def test_a_run_has_room_for_its_blocks_and_keeps_the_bound_unless_it_has_one_line(query, cost):
    shape, row, block = query
    for lines in plan_pairs(row, block, shape, cost):
        assert (shape.size[lines.block] <= lines.size).all()
        assert len(lines.block) == 1 or bytes_of(lines, cost) <= cost.max_bytes


@given(queries(), COSTS)
def test_blocks_in_place_lie_one_after_another_and_have_one_size(query, cost):
    shape, row, block = query
    for lines in plan_pairs(row, block, shape, cost):
        if lines.in_place:
            assert (np.diff(lines.block) == 1).all()
            assert (shape.size[lines.block] == lines.size).all()


@given(queries())
def test_with_enough_memory_a_block_is_opened_once_for_each_32_calls(query):
    shape, row, block = query
    lines_of = np.zeros(shape.num_blocks, np.int64)
    for lines in plan_pairs(row, block, shape, RunCost(16, 1 << 30)):
        np.add.at(lines_of, lines.block[np.unique(lines.place // lines.num_calls)], 1)
    calls = [len(np.unique(row[block == b])) for b in range(shape.num_blocks)]
    expected = [-(-count // MAX_CALLS) for count in calls]
    np.testing.assert_array_equal(lines_of, expected)


@given(LEVELS, st.integers(0, 20), COSTS)
def test_a_plan_of_all_opens_each_block_once_for_each_row(shape, rows, cost):
    opened = np.zeros((rows, shape.num_blocks), np.int64)
    for lines in plan_all(np.arange(rows), shape, cost):
        opened[lines.row, lines.block[:, None]] += 1
        assert len(lines.block) == 1 or bytes_of(lines, cost) <= cost.max_bytes
    np.testing.assert_array_equal(opened, 1)


@given(st.lists(st.integers(1, 5000), min_size=1, max_size=60))
def test_padding_is_at_most_a_quarter(sizes):
    shape = level(sizes)
    for lines in plan_all(np.arange(2), shape, RunCost(16, 1 << 30)):
        assert (lines.size <= 1.25 * shape.size[lines.block]).all()


def test_most_blocks_of_a_level_are_read_in_place_and_few_are_copied():
    shape = level([10] * 30)
    few, many = np.array([3, 20]), np.arange(0, 30, 2)
    for block, in_place in ((few, False), (many, True)):
        [lines] = plan_pairs(np.zeros(len(block), np.int64), block, shape, RunCost(16, 1 << 30))
        assert lines.in_place is in_place


@pytest.mark.parametrize("value_bytes", [0, 16])
def test_no_tensor_has_2_to_the_31_elements(value_bytes):
    """A bound of memory large enough to be of no effect leaves the bound of elements."""
    shape = LevelShape(np.arange(4) * 10**6, np.full(4, 10**6), 256)
    row = np.repeat(np.arange(3000), 4)
    block = np.tile(np.arange(4), 3000)
    for lines in plan_pairs(row, block, shape, RunCost(value_bytes, 1 << 60)):
        lines_and_calls = len(lines.block) * lines.num_calls
        assert lines_and_calls * max(lines.size, 256) < 2**31
        assert len(lines.block) * lines.size * 256 < 2**31
