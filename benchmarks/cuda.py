"""What does a GPU give: the graphs on CUDA beside the CPU, and beside PyTorch on the same GPU?

    python -m benchmarks.cuda

Arrays come from and go to the host, as in the service. With PyTorch in the environment: "two-level"
gathers each target's block and multiplies them in one batch, "flat" is a Linear over all targets.
"""

import argparse
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import numpy as np
import onnxruntime

from models.arrays import Array
from service.sessions import CUDA, ON_CUDA

from .measure import medians_of, report
from .options import integers, sizes, two_level_options
from .synthetic import Written, two_level

Feeds = Mapping[str, Array]
Run = Callable[[Feeds], object]

_TASKS = ("log_probs", "target_log_prob", "top_k")
_K = 10
_WHOLE = 128  # rows of a full distribution, at most


def main() -> None:
    options = _options()
    onnxruntime.preload_dlls()
    torch = import_module("torch") if find_spec("torch") else None
    with two_level(options.clusters, options.block, options.hidden) as made:
        peer = {} if torch is None else _peer(torch, made)
        for task in options.tasks:
            runs = _runs(made, task, options.threads) | peer.get(task, {})
            rows = [_measure(made, task, runs, batch, options) for batch in options.batches]
            title = f"{task}: {sizes(options)}, CPU with {options.threads} threads"
            report(f"{title}, us a batch", [row for row in rows if row], None)


def _measure(
    made: Written, task: str, runs: Mapping[str, Run], batch: int, options: argparse.Namespace
) -> dict[str, object]:
    if task == "log_probs" and batch > _WHOLE:
        return {}
    rng = np.random.default_rng(batch)
    taken = medians_of(runs, lambda: _feeds(made, task, rng, batch), repeats=options.repeats)
    ratios = {f"x {name}": taken[name] / taken["cuda"] for name in taken if name != "cuda"}
    return {"rows": batch, **ratios, **taken}


def _feeds(made: Written, task: str, rng: np.random.Generator, batch: int) -> Feeds:
    hidden = rng.standard_normal((batch, made.model.hidden_size), np.float32)
    match task:
        case "target_log_prob":
            target = rng.integers(0, made.model.num_targets, batch)
            return {"hidden": hidden, "row": np.arange(batch), "target": target}
        case "top_k":
            return {"hidden": hidden, "k": np.array([_K]), "max_blocks": np.array([0])}
        case _:
            return {"hidden": hidden}


def _runs(made: Written, task: str, threads: int) -> dict[str, Run]:
    sessions = {
        "cuda": made.session(task, threads, ON_CUDA.providers),
        "cpu": made.session(task, threads),
    }
    if (got := sessions["cuda"].get_providers()[0]) != CUDA:
        raise SystemExit(f"expected {CUDA}, got {got}")
    return {
        name: lambda feeds, session=session: session.run(None, feeds)
        for name, session in sessions.items()
    }


def _peer(torch: ModuleType, made: Written) -> dict[str, dict[str, Run]]:
    """PyTorch's own ways to the same, eager, without TF32."""
    top, last = made.model.levels
    w0, b0, w1, b1 = (
        torch.from_numpy(array).cuda() for array in (top.weight, top.bias, last.weight, last.bias)
    )
    blocks, linear = w1.view(len(b0), -1, w1.shape[1]), torch.nn.functional.linear

    def given(feeds: Feeds, name: str) -> Any:  # noqa: ANN401
        return torch.from_numpy(feeds[name]).cuda()

    def clusters(hidden: Any) -> Any:  # noqa: ANN401
        return torch.log_softmax(linear(hidden, w0, b0), 1)

    def two_level(feeds: Feeds) -> Array:
        hidden, target = given(feeds, "hidden"), given(feeds, "target")
        cluster, position = target // blocks.shape[1], target % blocks.shape[1]
        scores = (
            torch.bmm(blocks[cluster], hidden[:, :, None])[:, :, 0] + b1.view(len(b0), -1)[cluster]
        )
        inside = torch.log_softmax(scores, 1).gather(1, position[:, None])
        answer: Array = (clusters(hidden).gather(1, cluster[:, None]) + inside).cpu().numpy()
        return answer

    def whole(hidden: Any) -> Any:  # noqa: ANN401
        scores = linear(hidden, w1, b1).view(len(hidden), len(b0), -1)
        return (torch.log_softmax(scores, 2) + clusters(hidden)[:, :, None]).flatten(1)

    def log_probs(feeds: Feeds) -> Array:
        answer: Array = whole(given(feeds, "hidden")).cpu().numpy()
        return answer

    def top_k(feeds: Feeds) -> list[Array]:
        hidden = given(feeds, "hidden")
        parts = [torch.topk(whole(some), _K) for some in hidden.split(_WHOLE)]
        return [torch.cat(one).cpu().numpy() for one in zip(*parts, strict=True)]

    def inference(run: Run) -> Run:
        return torch.inference_mode()(run)  # type: ignore[no-any-return]

    return {
        "target_log_prob": {"torch two-level": inference(two_level)},
        "top_k": {"torch": inference(top_k)},
        "log_probs": {"torch": inference(log_probs)},
    }


def _options() -> argparse.Namespace:
    parser = two_level_options(__doc__)
    parser.add_argument("--tasks", type=lambda names: names.split(","), default=_TASKS)
    parser.add_argument("--batches", type=integers, default=[1, 8, 32, 128, 1024, 4096])
    parser.add_argument("--threads", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=20)
    return parser.parse_args()


if __name__ == "__main__":
    main()
