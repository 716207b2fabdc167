"""A bag of words, one hidden layer, and a softmax over the tree.

log p(code | text) = sum over the four levels of log_softmax(block(path))[position(path)]
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from texts import BUCKETS, NOTHING


class Network(nn.Module):
    """Text to hidden state, and the rows of each level."""

    def __init__(self, rows: Sequence[int], hidden_size: int, width: int, dropout: float) -> None:
        super().__init__()
        self.words = nn.EmbeddingBag(BUCKETS + 1, width, mode="mean", padding_idx=NOTHING)
        self.hidden = nn.Linear(width, hidden_size)
        self.levels = nn.ModuleList(nn.Linear(hidden_size, count) for count in rows)
        self.dropout = dropout
        nn.init.normal_(self.words.weight, std=1.0)
        for level in self.levels:
            nn.init.zeros_(level.bias)

    def forward(self, bag: Tensor) -> Tensor:
        """bag [B, words] -> hidden [B, H]; in training, words go missing."""
        if self.training:
            bag = torch.where(torch.rand(bag.shape) < self.dropout, NOTHING, bag)
        return torch.tanh(self.hidden(self.words(bag)))


def log_prob(network: Network, hidden: Tensor, paths: Tensor, offsets: Sequence[Tensor]) -> Tensor:
    """log p of one row of the last level for each hidden row, [B].

    Args:
        paths: [B, levels] row of each level.
        offsets: of each level's blocks.
    """
    total = torch.zeros(len(hidden))
    block = torch.zeros(len(hidden), dtype=torch.long)
    for number, (level, begins) in enumerate(zip(network.levels, offsets, strict=True)):
        row = paths[:, number]
        total = total + _local(level, hidden, begins[block], begins[block + 1], row)
        block = row
    return total


def _local(level: nn.Linear, hidden: Tensor, start: Tensor, end: Tensor, row: Tensor) -> Tensor:
    """log softmax of one row within rows start:end, for each hidden row; blocks of any size."""
    sizes = end - start
    who = torch.repeat_interleave(torch.arange(len(hidden)), sizes)
    first = torch.cumsum(sizes, 0) - sizes
    rows = start[who] + torch.arange(len(who)) - first[who]
    scores = (level.weight[rows] * hidden[who]).sum(1) + level.bias[rows]
    largest = torch.full((len(hidden),), -torch.inf).scatter_reduce(0, who, scores.detach(), "amax")
    sums = torch.zeros(len(hidden)).index_add(0, who, torch.exp(scores - largest[who]))
    return scores[first + row - start] - largest - torch.log(sums)
