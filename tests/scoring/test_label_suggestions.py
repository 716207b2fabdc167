"""Suggested labels: close ones, in a time that does not depend on the number of labels."""

import pytest

from hsoftmax.scoring import BundleInfo
from hsoftmax.scoring.label_suggestions import label_hint, spelling_hint


class CountedLabels(dict[str, int]):
    """A mapping that counts its look-ups."""

    looked_up = 0

    def __contains__(self, label: object) -> bool:
        self.looked_up += 1
        return super().__contains__(label)


def info(*labels: str, prefix: str = "") -> BundleInfo:
    return BundleInfo("words", "0" * 64, 4, len(labels), frozenset(), labels, label_prefix=prefix)


@pytest.mark.parametrize(
    ("unknown", "label"),
    [("paris", "Paris"), ("New York", "New_York"), ("new_york", "New York"), ("TEA ", "tea")],
)
def test_another_spelling_is_suggested_for_rows_and_queries(unknown, label):
    for hint in (spelling_hint, label_hint):
        assert hint(unknown, info(label, "other")) == f": did you mean {label!r}?"


@pytest.mark.parametrize("unknown", ["pris", "pparis", "parsi", "pxris", "Parsi"])
def test_a_typo_is_found_for_queries_only(unknown):
    assert label_hint(unknown, info("paris")) == ": did you mean 'paris'?"
    assert spelling_hint(unknown, info("paris")) == ""


def test_the_prefix_of_a_label_is_no_part_of_it():
    assert label_hint("__label__EN", info("en", prefix="__label__")) == ": did you mean 'en'?"


@pytest.mark.parametrize("unknown", ["a", "ab", "x" * 65, "", "nothing like it"])
def test_short_long_and_far_labels_get_no_suggestion(unknown):
    assert label_hint(unknown, info("z", "abc", "x" * 66)) == ""


def test_the_look_ups_are_bounded_however_many_labels_there_are():
    some = info(*(f"label {i}" for i in range(1000)))
    counted = CountedLabels(some.target_of_label)
    some.__dict__["target_of_label"] = counted
    assert label_hint("\N{BLACK STAR}" * 64, some) == ""
    assert counted.looked_up < 12_000
    counted.looked_up = 0
    assert spelling_hint("\N{BLACK STAR}" * 64, some) == ""
    assert counted.looked_up <= 15
