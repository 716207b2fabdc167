"""The language model: a table of word vectors, an LSTM, a projection to `hidden`, and the softmax.

The head is the two-level softmax of the example beside it, and starts from that example's weights.
The encoder's table starts as the vector that the head has for each word.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from clusters import Shape
from network import CHUNK, TwoLevelSoftmax

State = tuple[Tensor, Tensor]


class LanguageModel(nn.Module):
    """Reads words, ends in a hidden state after each of them.

    A training window forgets what stood before it with probability `forget`, for each stream alone.
    So the model also learns to read a text from its first word, as the texts of queries are read.
    """

    def __init__(
        self, shape: Shape, hidden: int, *, memory: int, dropout: float, forget: float
    ) -> None:
        super().__init__()
        self.table = nn.Embedding(shape.n_targets, hidden)
        self.lstm = nn.LSTM(hidden, memory)
        self.projection = nn.Linear(memory, hidden)
        self.softmax = TwoLevelSoftmax(shape, hidden)
        self.dropout = nn.Dropout(dropout)
        self.forget = forget

    def forward(self, words: Tensor, state: State | None) -> tuple[Tensor, State]:
        """[steps, streams] words read so far -> [steps, streams, hidden]."""
        if self.training and state is not None:
            kept = (torch.rand(1, words.shape[1], 1) >= self.forget).float()
            state = (state[0] * kept, state[1] * kept)
        out, state = self.lstm(self.dropout(self.table(words)), state)
        return self.dropout(self.projection(self.dropout(out))), state

    def start_from(self, weights: Path) -> None:
        """Copy the trained head of `weights.npz`, and the table from its vectors of words."""
        with np.load(weights) as saved, torch.no_grad():
            self.softmax.cluster_weight.copy_(torch.from_numpy(saved["W1"].T.copy()))
            self.softmax.cluster_bias.copy_(torch.from_numpy(saved["b1"]))
            self.softmax.word_weight.copy_(torch.from_numpy(saved["W2"].transpose(0, 2, 1).copy()))
            self.softmax.word_bias.copy_(torch.from_numpy(saved["b2"]))
            self.table.weight.copy_(self.softmax.embed(torch.arange(self.table.num_embeddings)))


@torch.no_grad()
def window_losses(model: LanguageModel, stream: np.ndarray, length: int) -> np.ndarray:
    """[M] -log p of each word of a stream but the first, from at most `length` words before it."""
    model.eval()
    targets = torch.from_numpy(stream)
    start = [model(targets[:end, None], None)[0][-1] for end in range(1, length)]
    windows = targets[:-1].unfold(0, length, 1)  # [M - length + 1, length]
    rest = [model(part.T, None)[0][-1] for part in windows.split(CHUNK)]
    hidden = torch.cat([*start, *rest])
    parts = zip(hidden.split(CHUNK), targets[1:].split(CHUNK), strict=True)
    return torch.cat([model.softmax(h, t).double() for h, t in parts]).numpy()
