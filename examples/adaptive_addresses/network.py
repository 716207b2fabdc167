"""A recurrent language model over PyTorch's own adaptive softmax.

The corpus numbers words by frequency, which is the order that an adaptive softmax wants. For the
training loop of the example beside it, this module takes the place of its namesake there.
"""

import numpy as np
import torch
from torch import Tensor, nn

State = tuple[Tensor, Tensor]
CHUNK = 2048


class AdaptiveSoftmax(nn.AdaptiveLogSoftmaxWithLoss):
    """The module of PyTorch, but with the loss of each target in place of their mean."""

    def forward(self, hidden: Tensor, targets: Tensor) -> Tensor:
        return -super().forward(hidden, targets).output


class LanguageModel(nn.Module):
    """Embedding, LSTM, projection to H; the softmax reads the projection."""

    def __init__(
        self, words: int, cutoffs: list[int], *, hidden: int, memory: int, dropout: float
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, hidden)
        nn.init.uniform_(self.embedding.weight, -0.1, 0.1)
        self.lstm = nn.LSTM(hidden, memory)
        self.projection = nn.Linear(memory, hidden)
        self.dropout = nn.Dropout(dropout)
        self.softmax = AdaptiveSoftmax(hidden, words, cutoffs, div_value=2.0, head_bias=True)

    def forward(self, words: Tensor, state: State | None) -> tuple[Tensor, State]:
        """[steps, streams] targets read so far -> [steps, streams, H] hidden."""
        out, state = self.lstm(self.dropout(self.embedding(words)), state)
        return self.dropout(self.projection(self.dropout(out))), state


@torch.no_grad()
def float64_log_prob(softmax: AdaptiveSoftmax, hidden: Tensor, targets: Tensor) -> Tensor:
    """Return log p of the targets in double precision; the softmax stays in single precision."""
    found = -softmax.double()(hidden.double(), targets)
    softmax.float()
    return found


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
