"""Tests of the laws that hold for the softmaxes of every family."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsoftmax import models

from .adaptive import adaptive_softmaxes
from .strategies import hidden_for, hierarchical_softmaxes
from .trees import huffman_softmaxes

FAMILIES = {
    "hierarchical": hierarchical_softmaxes(),
    "adaptive": adaptive_softmaxes(),
    "huffman": huffman_softmaxes(),
}
every_family = pytest.mark.parametrize("softmaxes", FAMILIES.values(), ids=FAMILIES)


@every_family
@given(st.data())
def test_every_single_target_has_its_value_in_the_full_distribution(softmaxes, data):
    model = data.draw(softmaxes)
    reference, hidden = models.reference(model), hidden_for(model)
    full = reference.log_probs(model, hidden)
    row, target = np.divmod(np.arange(full.size), model.num_targets)
    alone = reference.target_log_prob(model, hidden, row, target)
    np.testing.assert_allclose(alone, full[row, target], rtol=1e-12, atol=1e-12)


@every_family
@given(st.data())
def test_top_k_is_the_sorted_full_distribution(softmaxes, data):
    model = data.draw(softmaxes)
    k = data.draw(st.integers(1, model.num_targets))
    reference, hidden = models.reference(model), hidden_for(model)
    best, targets = reference.top_k(model, hidden, k)
    for row, values in enumerate(reference.log_probs(model, hidden)):
        order = sorted(range(model.num_targets), key=lambda t: (-values[t], t))[:k]
        assert targets[row].tolist() == order
        assert best[row].tolist() == values[order].tolist()


@every_family
@given(st.data())
def test_log_probs_stay_finite_for_large_logits(softmaxes, data):
    model = data.draw(softmaxes)
    hidden = hidden_for(model, scale=data.draw(st.sampled_from([60.0, 100.0, 1e4])))
    assert np.isfinite(models.reference(model).log_probs(model, hidden)).all()


@every_family
@given(st.data())
def test_a_model_read_back_from_its_tensors_is_the_same(softmaxes, data):
    model = data.draw(softmaxes)
    tensors, attributes = models.to_tensors(model), models.attributes(model)
    again = models.from_tensors(models.family(model), tensors, attributes)
    assert models.attributes(again) == attributes
    hidden, reference = hidden_for(model), models.reference(model)
    np.testing.assert_array_equal(
        reference.log_probs(again, hidden), reference.log_probs(model, hidden)
    )
