"""A rollout is parsed and checked; a client's key chooses its version in a split."""

import json
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hsoftmax.service.errors import ServiceError
from hsoftmax.service.repository.rollout import (
    Share,
    choose,
    parse_rollout,
    resolve,
    resolve_served,
)

STABLE_AND_CANARY = {"aliases": {"stable": 1, "canary": "2"}, "split": {"stable": 90, "canary": 10}}


def shares(**weights: float) -> list[Share]:
    return [Share(name, i, weight) for i, (name, weight) in enumerate(weights.items(), 1)]


def chosen(split: list[Share], keys: int = 20_000) -> list[int]:
    return [choose(split, "words", b"client %d" % i) for i in range(keys)]


@pytest.mark.parametrize(
    ("rollout", "sentence"),
    [
        ("{", "body: expected JSON, which this is not"),
        ("[]", "body: expected an object, got a list"),
        ('{"splits": {}}', "unknown field 'splits': expected pin, aliases, split"),
        ({"pin": True}, "pin: expected an integer or a string or null, got a boolean"),
        ({"pin": "canary"}, "pin: expected a version or an alias (none), got 'canary'"),
        ({"pin": 1, "split": {"1": 100}}, "expected pin or split, got both"),
        ({"pin": 3}, "pin: expected version 1 or 2, got 3"),
        ({"aliases": {"canary": 3}}, "aliases.canary: expected version 1 or 2, got 3"),
        ({"aliases": {"canary": "stable"}}, "aliases.canary: expected a version, got 'stable'"),
        ({"aliases": {"2": 1}}, "aliases: expected names of letters, digits"),
        ({"split": {"1": 90, "2": 9}}, "split: expected percentages that sum up to 100, got 99"),
        ({"split": {"1": 110, "2": -10}}, "split.1: expected 0 to 100 percent, got 110"),
        ({"split": {"1": "90"}}, "split: expected a number, got a string"),
        ({"split": {"new": 100}}, "split: expected a version or an alias (none), got 'new'"),
        ({"split": {"1": 50, "7": 50}}, "split.7: expected version 1 or 2, got 7"),
    ],
)  # fmt: skip
def test_a_wrong_rollout_is_one_clear_line(rollout, sentence):
    content = rollout if isinstance(rollout, str) else json.dumps(rollout)
    with pytest.raises(ServiceError) as raised:
        resolve(parse_rollout(content.encode()), [1, 2])
    assert sentence in str(raised.value)
    assert "\n" not in str(raised.value)


def test_names_become_versions():
    resolved = resolve(parse_rollout(json.dumps(STABLE_AND_CANARY).encode()), [1, 2])
    assert resolved.aliases == {"stable": 1, "canary": 2}
    assert resolved.shares == (Share("stable", 1, 90), Share("canary", 2, 10))
    pinned = resolve(parse_rollout(b'{"pin": "2"}'), [1, 2])
    assert {choose(pinned.shares, "words", b"%d" % i) for i in range(100)} == {2}


def test_the_rest_answers_for_a_version_that_is_gone():
    rollout = parse_rollout(json.dumps(STABLE_AND_CANARY).encode())
    assert resolve_served(rollout, [1]).shares == (Share("stable", 1, 90),)
    assert resolve_served(rollout, [1]).aliases == {"stable": 1}
    with pytest.raises(ServiceError, match="expected a version that is served, got 1 and 2"):
        resolve_served(rollout, [3])


@settings(max_examples=20)
@given(st.lists(st.integers(1, 100), min_size=2, max_size=5))
def test_each_version_gets_its_part_of_the_keys(weights):
    split = [Share(f"v{i}", i, weight) for i, weight in enumerate(weights)]
    counts, keys = Counter(chosen(split, 2000)), 2000
    for share in split:
        part = share.weight / sum(weights)
        assert abs(counts[share.version] / keys - part) < 5 * (part * (1 - part) / keys) ** 0.5


def test_a_part_that_grows_keeps_its_keys_and_one_that_shrinks_gets_none():
    before = chosen(shares(stable=80, canary=10, other=10))
    after = chosen(shares(stable=70, canary=20, other=10))
    moved = {(one, two) for one, two in zip(before, after, strict=True) if one != two}
    assert moved == {(1, 2), (1, 3), (3, 2)}
    reordered = chosen([*reversed(shares(stable=70, canary=20, other=10))])
    assert reordered == after


def test_models_choose_independently_and_a_part_of_nothing_gets_nothing():
    split = shares(stable=50, canary=50)
    keys = [b"client %d" % i for i in range(1000)]
    agree = sum(choose(split, "a", key) == choose(split, "b", key) for key in keys)
    assert 400 < agree < 600
    assert set(chosen(shares(stable=100, canary=0), 1000)) == {1}
    assert choose(shares(stable=40, canary=60), "words", None) == 2


def test_the_choice_is_the_same_in_every_process_and_release():
    split = shares(stable=50, canary=50)
    assert chosen(split, 12) == [2, 2, 1, 2, 2, 2, 2, 1, 1, 1, 1, 1]
