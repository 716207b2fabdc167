"""A recurrent language model over the two-level softmax.

    log p(t | h) = log softmax(h W1 + b1)[t // K] + log softmax(h W2[t // K] + b2[t // K])[t % K]

The slots of the last cluster that hold no target are -inf in the loss. A word is read through the
same weights that predict it: its embedding is W1[:, t // K] + W2[t // K, :, t % K], after
Press & Wolf (2017).
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, embedding

from clusters import Shape

State = tuple[Tensor, Tensor]
CHUNK = 2048


class TwoLevelSoftmax(nn.Module):
    """Holds W1 and W2 with the hidden axis last, where rows are quick to gather."""

    def __init__(self, shape: Shape, hidden: int) -> None:
        super().__init__()
        clusters, size = shape.n_clusters, shape.cluster_size
        self.shape = shape
        self.cluster_weight = nn.Parameter(torch.empty(clusters, hidden).uniform_(-0.1, 0.1))
        self.cluster_bias = nn.Parameter(torch.zeros(clusters))
        self.word_weight = nn.Parameter(torch.empty(clusters, size, hidden).uniform_(-0.1, 0.1))
        self.word_bias = nn.Parameter(torch.zeros(clusters, size))
        empty = torch.arange(clusters * size).view(clusters, size) >= shape.n_targets
        self.register_buffer("empty", empty)
        with torch.no_grad():
            self.word_weight[empty] = 0

    def embed(self, targets: Tensor) -> Tensor:
        """[..., H] the sum of a word's cluster vector and its own."""
        cluster = embedding(targets // self.shape.cluster_size, self.cluster_weight)
        return cluster + embedding(targets, self.word_weight.flatten(0, 1))

    def forward(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """[M] -log p(target | hidden), computed with the positions grouped by cluster."""
        order = torch.argsort(targets)
        back = torch.argsort(order)
        hidden, targets = hidden[order], targets[order]
        cluster, position = targets // self.shape.cluster_size, targets % self.shape.cluster_size
        scores = hidden @ self.cluster_weight.T + self.cluster_bias
        loss = cross_entropy(scores, cluster, reduction="none")
        return (loss + self.within(hidden, cluster, position))[back]

    def within(self, hidden: Tensor, cluster: Tensor, position: Tensor) -> Tensor:
        """[M] -log p(position | cluster), one product for each cluster that occurs."""
        sizes = torch.bincount(cluster, minlength=self.shape.n_clusters).tolist()
        bias = self.word_bias.masked_fill(self.empty, -torch.inf)
        groups = zip(
            hidden.split(sizes),
            position.split(sizes),
            self.word_weight.unbind(),
            bias.unbind(),
            strict=True,
        )
        return torch.cat(
            [cross_entropy(h @ w.T + b, p, reduction="none") for h, p, w, b in groups if len(h)]
        )


class LanguageModel(nn.Module):
    """Embedding, LSTM, projection to H; the softmax reads the projection."""

    def __init__(self, shape: Shape, *, hidden: int, memory: int, dropout: float) -> None:
        super().__init__()
        self.softmax = TwoLevelSoftmax(shape, hidden)
        self.lstm = nn.LSTM(hidden, memory)
        self.projection = nn.Linear(memory, hidden)
        self.dropout = nn.Dropout(dropout)

    def forward(self, words: Tensor, state: State | None) -> tuple[Tensor, State]:
        """[steps, streams] targets read so far -> [steps, streams, H] hidden."""
        out, state = self.lstm(self.dropout(self.softmax.embed(words)), state)
        return self.dropout(self.projection(self.dropout(out))), state


@torch.no_grad()
def losses_of(model: LanguageModel, stream: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Reads a stream once, in order: [M, H] hidden and [M] -log p of each target but the first."""
    model.eval()
    state, hidden, losses = None, [], []
    targets = torch.from_numpy(stream)
    for words, following in zip(targets[:-1].split(CHUNK), targets[1:].split(CHUNK), strict=True):
        out, state = model(words[:, None], state)
        hidden.append(out[:, 0])
        losses.append(model.softmax(out[:, 0], following).double())
    return torch.cat(hidden).numpy(), torch.cat(losses).numpy()
