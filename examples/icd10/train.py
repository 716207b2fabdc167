"""Train on the descriptions of all ICD-10-CM codes; save what `export --from levels` reads.

pip install torch==2.13.0 simple-icd-10-cm tqdm
python train.py
"""

import argparse
import json
import math
from pathlib import Path

import numpy as np
import simple_icd_10_cm as icd
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from hierarchy import Hierarchy, read_hierarchy
from network import Network, log_prob
from texts import bags, descriptions, other_wordings

QUESTIONS = 200


def main() -> None:
    told = _options()
    torch.manual_seed(told.seed)
    torch.set_num_threads(told.threads)
    tree = read_hierarchy()
    offsets = [torch.from_numpy(level) for level in tree.offsets]
    paths = torch.from_numpy(_paths(tree))
    rows = [len(level) for level in (tree.chapters, tree.blocks, tree.categories, tree.codes)]
    network = Network(rows, told.hidden, told.width, dropout=0.3)
    optimiser = torch.optim.Adam(network.parameters())
    known = torch.from_numpy(bags(descriptions(tree.codes)))
    terms, targets = other_wordings(tree.codes)
    asked = torch.from_numpy(bags(terms))
    history = []
    for epoch in range(told.epochs):
        rate = told.rate * 0.5 * (1 + math.cos(math.pi * epoch / told.epochs))
        for group in optimiser.param_groups:
            group["lr"] = rate
        loss = _epoch(network, optimiser, known, paths, offsets, told.batch)
        history.append({"epoch": epoch + 1, "train_nats": loss})
        print(f"epoch {epoch + 1:2d}  rate {rate:.4f}  train {loss:.3f} nats", flush=True)
    figures = _figures(network, known, asked, torch.from_numpy(targets), paths, offsets)
    print(json.dumps(figures, indent=1))
    _save(told.out, network, tree, asked, terms, targets, {"epochs": history, **figures})


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    for name, default in {"seed": 1, "threads": 1, "hidden": 32, "width": 64}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--rate", type=float, default=0.01)
    return parser.parse_args()


def _paths(tree: Hierarchy) -> NDArray[np.int64]:
    """[N, 4]: each target's row at each level."""
    row = np.arange(len(tree.codes))
    path = [row]
    for offsets in reversed(tree.offsets[1:]):
        row = np.searchsorted(offsets, row, side="right") - 1
        path.insert(0, row)
    return np.stack(path, axis=1)


def _epoch(
    network: Network,
    optimiser: torch.optim.Optimizer,
    bag: Tensor,
    paths: Tensor,
    offsets: list[Tensor],
    batch: int,
) -> float:
    """One pass over all codes in random order; mean loss in nats."""
    network.train()
    total = 0.0
    for some in tqdm(torch.randperm(len(bag)).split(batch), leave=False):
        loss = -log_prob(network, network(bag[some]), paths[some], offsets).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        total += loss.item() * len(some)
    return total / len(bag)


@torch.no_grad()
def _nats(
    network: Network, bag: Tensor, targets: Tensor, paths: Tensor, offsets: list[Tensor]
) -> float:
    """Mean -log p of the true codes."""
    network.eval()
    total = 0.0
    for some in torch.arange(len(bag)).split(256):
        hidden = network(bag[some])
        total -= log_prob(network, hidden, paths[targets[some]], offsets).sum().item()
    return total / len(bag)


def _figures(
    network: Network,
    known: Tensor,
    asked: Tensor,
    targets: Tensor,
    paths: Tensor,
    offsets: list[Tensor],
) -> dict[str, float]:
    every = torch.arange(len(known))
    return {
        "num_targets": len(known),
        "uniform_nats": math.log(len(known)),
        "description_nats": _nats(network, known, every, paths, offsets),
        "inclusion_terms": len(asked),
        "inclusion_term_nats": _nats(network, asked, targets, paths, offsets),
    }


@torch.no_grad()
def _save(
    out: Path,
    network: Network,
    tree: Hierarchy,
    asked: Tensor,
    terms: list[str],
    targets: NDArray[np.int64],
    figures: dict[str, object],
) -> None:
    arrays = {}
    for i, (level, offsets) in enumerate(zip(network.levels, tree.offsets, strict=True)):
        arrays[f"weight_{i}"] = level.weight.numpy().astype(np.float16)  # half the size to commit
        arrays[f"bias_{i}"] = level.bias.numpy()
        arrays[f"offsets_{i}"] = offsets
    np.savez_compressed(out / "weights.npz", **arrays)
    (out / "labels.txt").write_text("".join(f"{code}\n" for code in tree.codes))
    chapters = [f"{number}\t{icd.get_description(number)}\n" for number in tree.chapters]
    (out / "chapters.txt").write_text("".join(chapters))
    some = np.random.default_rng(2).choice(len(terms), QUESTIONS, replace=False)
    hidden = network.eval()(asked[torch.from_numpy(some)]).numpy()
    np.savez_compressed(out / "questions.npz", hidden=hidden, target=targets[some])
    lines = [{"text": terms[i], "code": tree.codes[targets[i]]} for i in some]
    (out / "questions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (out / "training.json").write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
