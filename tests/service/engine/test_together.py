"""What came in one turn of the loop is run there in as few runs as can be; nobody can tell."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from service.engine import Outputs
from service.engine.together import run_together
from service.errors import InferenceFailed, NotReady

from .conftest import held, pairs, rows


def values(outcomes) -> list:
    return [one.arrays[0].tolist() for one in outcomes]


def test_calls_of_one_graph_are_one_run(engine, tally):
    session = held("target_log_prob")
    calls = [
        pairs(session, [1, 2], [0, 1, 1], [5, 6, 7]),
        pairs(session, [3], [0, 0], [8, 9]),
        pairs(session, [4, 5], [1, 0], [1, 2]),
    ]
    outcomes = engine.run_together(calls)
    assert values(outcomes) == [[1005, 2006, 2007], [3008, 3009], [5001, 4002]]
    assert len(session.runtime.ran) == 1
    assert tally.batches == [("target", 5, 3)]
    assert all(one.queued == 0 and one.computed > 0 for one in outcomes)


def test_they_come_back_in_their_order_however_they_were_grouped(engine, tally):
    session, other, k = held(), held(), held("top_k")
    calls = [
        rows(session, 1),
        rows(other, 2),
        rows(k, 3, k=np.array([2])),
        rows(session, 4, 5),
        rows(k, 6, k=np.array([1])),
        rows(k, 7, k=np.array([2])),
    ]
    got = values(engine.run_together(calls))
    assert got == [[1], [2], [[3, 3]], [4, 5], [[6]], [[7, 7]]]
    assert [len(one.runtime.ran) for one in (session, other, k)] == [1, 1, 2]
    assert tally.batches == [("full", 3, 2), ("top_k", 2, 2)]  # a run that nobody shares is none


@given(st.lists(st.lists(st.integers(0, 99), min_size=1, max_size=4), max_size=9))
def test_together_is_as_alone(batches):
    session = held("target_log_prob")
    calls = [pairs(session, one, range(len(one)), one[::-1]) for one in batches]

    def alone(call) -> Outputs:
        return Outputs(session.run(call.feeds))

    together = run_together(calls, alone, lambda calls, seconds: None)
    assert values(together) == values(map(alone, calls))


def test_whoever_spoils_a_run_spoils_only_its_own(engine):
    session = held()
    session.runtime.poison = 2
    first, spoilt, last = engine.run_together([rows(session, v) for v in (1, 2, 3)])
    assert values([first, last]) == [[1], [3]]
    assert isinstance(spoilt, InferenceFailed)
    assert len(session.runtime.ran) == 4


def test_a_graph_that_gives_too_little_answers_nobody_wrongly(engine):
    session = held()
    session.runtime._result = lambda feeds: feeds["hidden"].sum(axis=1)[:1]
    assert values(engine.run_together([rows(session, 1), rows(session, 2)])) == [[1], [2]]


def test_without_batching_each_has_its_own_run(start, tally):
    session = held()
    calls = [rows(session, 1), rows(session, 2)]
    assert values(start(batching=False).run_together(calls)) == [[1], [2]]
    assert len(session.runtime.ran) == 2
    assert not tally.batches


def test_nothing_is_run_for_nobody(engine):
    assert engine.run_together([]) == []


def test_an_engine_that_stops_says_so(engine):
    session = held()
    session.runtime.poison = 1
    engine.close()
    (outcome,) = engine.run_together([rows(session, 1)])
    assert isinstance(outcome, NotReady)
