"""Facts about a bundle that reading and scoring rows needs, apart from the runner of its graphs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol, Self

import numpy as np

from hsoftmax import bundle
from hsoftmax.featurizers import Featurizer, TextInput, input_kinds, open_featurizer
from hsoftmax.models.arrays import Array, Float32
from hsoftmax.models.probability import max_log_prob

from .errors import CallError, RowError

NamedRow = Mapping[str, object]  # one row of each of an encoder's inputs


class EncodesRows(Protocol):
    """Turns rows of text or of inputs by name into hidden states, as `runtime.row_encoder` does."""

    @property
    def takes_text(self) -> bool:
        """True if a row may be a text or a list of words."""

    @property
    def takes_named(self) -> bool:
        """True if a row may be the inputs of an encoder by name."""

    def __call__(self, rows: Sequence[TextInput | NamedRow]) -> Sequence[Float32 | str | RowError]:
        """Return for each row its state, or its error, or the sentence of an `invalid_query`."""


@dataclass(frozen=True)
class BundleInfo:
    """Name, sizes, graphs and labels of a softmax; `digest` identifies it exactly.

    Attributes:
        max_log_prob: 0, or infinity for scores that may exceed one
        native: the graphs that native kernels compute, whose last digits differ
        featurizer: turns text into an input; None if the bundle has none
        encoder: turns inputs by name or text into an input, here or on a server; None if there is
            none
        label_prefix: text that a label may have in front, as in the files of the trained model
        inner_labels: of inner nodes, whose numbers follow those of the targets
    """

    name: str
    digest: str
    hidden_size: int
    num_targets: int
    graphs: frozenset[str]
    labels: tuple[str, ...] | None = None
    max_log_prob: float = 0.0
    native: frozenset[str] = frozenset()
    featurizer: Featurizer | None = field(default=None, compare=False, repr=False)
    encoder: EncodesRows | None = field(default=None, compare=False, repr=False)
    label_prefix: str = ""
    inner_labels: tuple[str, ...] = ()

    @classmethod
    def of(cls, opened: bundle.Bundle, native: frozenset[str] = frozenset()) -> Self:
        """Reads the facts of an opened bundle. Raises CallError for a layer that is no softmax."""
        manifest = opened.manifest
        if manifest.hidden_size is None or manifest.num_targets is None:
            raise CallError(f"{opened.path}: expected a softmax, got a {manifest.family}")
        labels = bundle.read_labels(opened)
        return cls(
            name=opened.path.parent.name,
            digest=manifest.digest,
            hidden_size=manifest.hidden_size,
            num_targets=manifest.num_targets,
            graphs=frozenset(manifest.tasks),
            labels=labels,
            max_log_prob=max_log_prob(manifest.attributes),
            native=native,
            featurizer=open_featurizer(opened),
            label_prefix=bundle.label_prefix(manifest),
            inner_labels=bundle.read_inner_labels(opened, labels or ()),
        )

    @property
    def takes_text(self) -> bool:
        encodes_text = self.encoder is not None and self.encoder.takes_text
        return self.featurizer is not None or encodes_text

    @property
    def takes_named(self) -> bool:
        return self.encoder is not None and self.encoder.takes_named

    @property
    def input_kinds(self) -> tuple[str, ...]:
        """The kinds of a row of inputs, as descriptions of a model name them."""
        if self.featurizer is not None:
            return ("hidden", *input_kinds(self.featurizer))
        if self.encoder is None:
            return ("hidden",)
        return ("hidden", "named", *(("text", "words") if self.takes_text else ()))

    @cached_property
    def target_of_label(self) -> Mapping[str, int]:
        return {label: target for target, label in enumerate(self.all_labels)}

    @cached_property
    def all_labels(self) -> tuple[str, ...]:
        """The labels of the targets, and those of inner nodes after them."""
        return (self.labels or ()) + self.inner_labels

    def target_or_none(self, number: int) -> int | None:
        """Returns the number of a label if it is a target, None if it is an inner node."""
        return number if number < self.num_targets else None

    def find_target(self, label: str) -> int | None:
        """Returns the target of a label, with or without the prefix; None if there is none.

        The number of an inner node is `num_targets` or more.
        """
        target = self.target_of_label.get(label)
        if target is None and self.label_prefix and label.startswith(self.label_prefix):
            return self.target_of_label.get(label.removeprefix(self.label_prefix))
        return target

    @cached_property
    def label_array(self) -> Array:
        """[num_targets] of str, to look up the labels of a whole matrix of targets at once."""
        return np.array(self.labels or (), dtype=object)
