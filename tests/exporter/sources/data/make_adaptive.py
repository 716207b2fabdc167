"""Make the test files of trained adaptive softmaxes, with the results expected from each.

    pip install torch==2.13.0 safetensors && python tests/exporter/sources/data/make_adaptive.py

Each safetensors file holds a module's state and `answers.hidden`, `answers.log_prob` and
`answers.best`, which sources ignore. PyTorch computes its own results; those of Transformer-XL and
fairseq are their formulas in float64, written out target by target.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

HERE = Path(__file__).parent
ROWS = 5

PYTORCH = {  # name: (hidden, targets, cutoffs, div_value, head_bias)
    "one_tail": (8, 12, [4], 2.0, False),
    "upstream": (16, 20, [5, 10, 15], 2.0, False),
    "upstream_predict": (8, 10, [4, 8], 2.0, True),
    "div_1": (12, 30, [10, 20], 1.0, False),
    "div_1_5": (12, 30, [3, 11, 12], 1.5, True),
    "div_4_width_0": (6, 25, [5, 10, 15], 4.0, True),
    "four_tails": (16, 60, [8, 16, 30, 59], 2.0, True),
    "larger": (32, 900, [60, 300], 4.0, True),
}
TRANSFORMER_XL = {  # name: (d_proj, d_embed, targets, cutoffs, div_val)
    "div_1": (8, 8, 24, [6, 12, 18], 1),
    "div_1_projected": (8, 6, 24, [6, 12, 18], 1),
    "div_2": (8, 8, 24, [6, 12, 18], 2),
    "div_4_projected": (10, 8, 24, [4, 9], 4),
}
FAIRSEQ = {  # name: (hidden, targets, cutoffs, factor, tied widths of the bands or None, tie_proj)
    "untied": (12, 30, [8, 16], 4, None, False),
    "tied": (12, 30, [8, 16], 2, [12, 6, 3], False),
    "tied_proj": (12, 30, [8, 16], 2, [12, 6, 3], True),
    "tied_narrow_head": (12, 30, [8, 16], 2, [10, 5, 2], True),
    "tied_square": (12, 30, [8, 16], 1, [12, 12, 12], True),
}


def main() -> None:
    torch.manual_seed(0)
    for name, case in PYTORCH.items():
        module, answers = pytorch(*case)
        save_file(prefixed(module.state_dict(), "lm.softmax.") | answers, path("pytorch", name))
        if name == "upstream":
            _checkpoints(module, answers)
    for name, case in TRANSFORMER_XL.items():
        save_file(transformer_xl(*case), path("transformer_xl", name))
    for name, case in FAIRSEQ.items():
        save_file(fairseq(*case), path("fairseq", name))
    module, answers = weight_normalised()
    save_file(
        prefixed(module.state_dict(), "lm.softmax.") | answers, path("pytorch", "weight_norm")
    )


def path(family: str, name: str) -> Path:
    return HERE / f"{family}_{name}.safetensors"


def prefixed(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {prefix + name: tensor.contiguous() for name, tensor in state.items()}


def answered(hidden: Tensor, log_prob: Tensor, kind: str = "log_prob") -> dict[str, Tensor]:
    return {
        "answers.hidden": hidden.float(),
        f"answers.{kind}": log_prob.double(),
        "answers.best": log_prob.argmax(dim=1),
    }


# --- PyTorch ------------------------------------------------------------------------------------


def pytorch(
    hidden_size: int, targets: int, cutoffs: list[int], div_value: float, head_bias: bool
) -> tuple[nn.AdaptiveLogSoftmaxWithLoss, dict[str, Tensor]]:
    module = nn.AdaptiveLogSoftmaxWithLoss(
        hidden_size, targets, cutoffs, div_value=div_value, head_bias=head_bias
    )
    return module, _answers(module, hidden_size)


def _answers(module: nn.AdaptiveLogSoftmaxWithLoss, hidden_size: int) -> dict[str, Tensor]:
    hidden = torch.randn(ROWS, hidden_size) * 3
    with torch.no_grad():
        best = {"answers.best": module.predict(hidden)}
        return answered(hidden, module.log_prob(hidden)) | best


def weight_normalised() -> tuple[nn.AdaptiveLogSoftmaxWithLoss, dict[str, Tensor]]:
    """Normalise weights over rows, over columns and as a whole, and change their lengths."""
    module = nn.AdaptiveLogSoftmaxWithLoss(16, 40, [10, 20], div_value=2.0, head_bias=True)
    nn.utils.weight_norm(module.head)
    nn.utils.weight_norm(module.tail[0][1], dim=1)
    nn.utils.weight_norm(module.tail[1][0], dim=None)
    with torch.no_grad():
        module.head.weight_g.mul_(1.7)
        module.tail[1][0].weight_g.mul_(3)
    return module, _answers(module, 16)


def _checkpoints(module: nn.Module, answers: dict[str, Tensor]) -> None:
    """Save one state in the usual forms: bare, nested with an optimizer, half, the old format."""
    state = module.state_dict()
    torch.save(state, HERE / "pytorch_bare.pt")
    everything = {
        "epoch": 3,
        "args": argparse.Namespace(lr=0.1, cutoffs="5,10,15"),
        "model": prefixed(state, "decoder.softmax."),
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}, "lr": 0.1},
    }
    torch.save(everything, HERE / "pytorch_nested.pt")
    torch.save({"state_dict": state}, HERE / "pytorch_old.pt", _use_new_zipfile_serialization=False)
    halves = {name: tensor.bfloat16() for name, tensor in state.items()}
    torch.save(halves, HERE / "pytorch_bfloat16.pt")
    save_file(halves, HERE / "pytorch_bfloat16.safetensors")
    save_file({name: t.half() for name, t in state.items()}, HERE / "pytorch_half.safetensors")
    torch.save({"one": state, "two": state}, HERE / "pytorch_twice.pt")


# --- Transformer-XL -----------------------------------------------------------------------------


def transformer_xl(
    d_proj: int, d_embed: int, targets: int, cutoffs: list[int], div_val: int
) -> dict[str, Tensor]:
    bounds = [0, *cutoffs, targets]
    bands = len(cutoffs) + 1
    widths = [d_embed // div_val**i for i in range(bands)]
    state = {
        "cluster_weight": torch.randn(len(cutoffs), d_embed),
        "cluster_bias": torch.randn(len(cutoffs)),
    }
    if div_val == 1:
        state |= linear("out_layers.0", targets, d_embed)
    else:
        for i, width in enumerate(widths):
            state |= linear(f"out_layers.{i}", bounds[i + 1] - bounds[i], width)
    if div_val != 1 or d_proj != d_embed:
        state |= {f"out_projs.{i}": torch.randn(d_proj, width) for i, width in enumerate(widths)}
    hidden = torch.randn(ROWS, d_proj)
    ascending, down_from_the_end = (
        _transformer_xl_log_prob(state, hidden, bounds, column)
        for column in (lambda i: cutoffs[0] + i - 1, lambda i: cutoffs[0] + len(cutoffs) - i)
    )
    answers = answered(hidden, down_from_the_end, "reversed") | answered(hidden, ascending)
    return prefixed(state, "crit.") | answers


def linear(name: str, rows: int, columns: int) -> dict[str, Tensor]:
    return {f"{name}.weight": torch.randn(rows, columns), f"{name}.bias": torch.randn(rows)}


def _transformer_xl_log_prob(
    state: dict[str, Tensor], hidden: Tensor, bounds: list[int], column: Callable[[int], int]
) -> Tensor:
    """Compute each band separately; `column` gives the head's column of band i = 1, 2, ..."""
    one_layer = "out_layers.1.weight" not in state

    def band(i: int) -> Tensor:
        layer, start, end = (0, bounds[i], bounds[i + 1]) if one_layer else (i, 0, None)
        weight = state[f"out_layers.{layer}.weight"][start:end].double()
        bias = state[f"out_layers.{layer}.bias"][start:end].double()
        if i == 0:
            weight = torch.cat([weight, state["cluster_weight"].double()])
            bias = torch.cat([bias, state["cluster_bias"].double()])
        projection = state.get(f"out_projs.{i}")
        seen = hidden.double() if projection is None else hidden.double() @ projection.double()
        return torch.log_softmax(seen @ weight.T + bias, dim=1)

    head = band(0)
    parts = [head[:, : bounds[1]]]
    parts += [head[:, [column(i)]] + band(i) for i in range(1, len(bounds) - 1)]
    return torch.cat(parts, dim=1)


# --- fairseq ------------------------------------------------------------------------------------


def fairseq(
    hidden_size: int,
    targets: int,
    cutoffs: list[int],
    factor: int,
    widths: list[int] | None,
    tie_proj: bool,
) -> dict[str, Tensor]:
    bounds = [0, *cutoffs, targets]
    decoder: dict[str, Tensor] = {"adaptive_softmax.version": torch.zeros(1)}
    embeddings, projections = [], []
    for i, width in enumerate(widths or ()):
        embeddings.append(torch.randn(bounds[i + 1] - bounds[i], width))
        projections.append(torch.randn(hidden_size, width))
        decoder[f"embed_tokens.embeddings.{i}.0.weight"] = embeddings[i].clone()
        decoder[f"embed_tokens.embeddings.{i}.1.weight"] = projections[i].clone()
    hidden = torch.randn(ROWS, hidden_size)
    head, state = _fairseq_head(hidden, bounds, embeddings)
    decoder |= prefixed(state, "adaptive_softmax.head.")
    parts = [head[:, : bounds[1]]]
    for i in range(len(cutoffs)):
        size, width = bounds[i + 2] - bounds[i + 1], hidden_size // factor ** (i + 1)
        rows = embeddings[i + 1].clone() if embeddings else torch.randn(size, width)
        stored = torch.randn(rows.shape[1], hidden_size)
        if tie_proj:
            stored = projections[i + 1].clone()  # [hidden, width]: the embedding's, read backwards
        decoder[f"adaptive_softmax.tail.{i}.0.weight"] = stored
        decoder[f"adaptive_softmax.tail.{i}.2.weight"] = rows
        seen = hidden.double() @ (stored if tie_proj else stored.T).double()
        local = torch.log_softmax(seen @ rows.double().T, dim=1)
        parts.append(head[:, [bounds[1] + i]] + local)
    return prefixed(decoder, "model.decoder.") | answered(hidden, torch.cat(parts, dim=1))


def _fairseq_head(
    hidden: Tensor, bounds: list[int], embeddings: list[Tensor]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return log-probabilities of the shortlist and the tails, and the head's part of the state."""
    hidden_size, tails = hidden.shape[1], len(bounds) - 2
    if not embeddings:
        weight = torch.randn(bounds[1] + tails, hidden_size)
        return torch.log_softmax(hidden.double() @ weight.double().T, dim=1), {"weight": weight}
    words, classes = embeddings[0].clone(), torch.randn(tails, hidden_size)
    seen = hidden.double()
    state = {"class_proj.weight": classes}
    if words.shape[1] == hidden_size:
        state["word_proj.weight"] = words
    else:
        narrow = torch.randn(words.shape[1], hidden_size)
        state |= {"word_proj.0.weight": narrow, "word_proj.1.weight": words}
        seen = seen @ narrow.double().T
    logits = torch.cat([seen @ words.double().T, hidden.double() @ classes.double().T], dim=1)
    return torch.log_softmax(logits, dim=1), state


if __name__ == "__main__":
    main()
