"""Small encoders as ONNX models, and what they compute in NumPy.

All of them read `ids` [batch, length] of NUM_IDS ids and give states of HIDDEN numbers.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from hsoftmax.models.arrays import Array, Float32

NUM_IDS, HIDDEN = 50, 8

_RNG = np.random.default_rng(7)
TABLE: Float32 = _RNG.normal(size=(NUM_IDS, HIDDEN)).astype(np.float32)
INPUT_WEIGHT: Float32 = _RNG.normal(size=(3 * HIDDEN, HIDDEN)).astype(np.float32) / 2
STATE_WEIGHT: Float32 = _RNG.normal(size=(3 * HIDDEN, HIDDEN)).astype(np.float32) / 2
BIAS: Float32 = _RNG.normal(size=6 * HIDDEN).astype(np.float32) / 2


def _input(name: str, dtype: int, *shape: int | str | None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, shape)


IDS = _input("ids", TensorProto.INT64, "batch", "length")
MASK = _input("mask", TensorProto.INT64, "batch", "length")
LENGTHS = _input("lengths", TensorProto.INT32, "batch")
STATE = _input("hidden", TensorProto.FLOAT, "batch", HIDDEN)
STATES = _input("states", TensorProto.FLOAT, "batch", "length", HIDDEN)


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    **weights: Array,
) -> onnx.ModelProto:
    tensors = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "encoder", inputs, outputs, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def mean(mask: str = "mask", *, masked: bool = True) -> onnx.ModelProto:
    """The mean of the embeddings under the mask; if not `masked`, padding counts too."""
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["embedded"]),
        helper.make_node("Cast", [mask], ["ones"], to=TensorProto.FLOAT),
        *([] if masked else [helper.make_node("Sub", ["ones", "ones"], ["zeros"]),
                             helper.make_node("Exp", ["zeros"], ["all"])]),
        helper.make_node("Unsqueeze", ["ones" if masked else "all", "axis"], ["column"]),
        helper.make_node("Mul", ["embedded", "column"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "one"], ["sum"], keepdims=0),
        helper.make_node("ReduceSum", ["column", "one"], ["count"], keepdims=0),
        helper.make_node("Div", ["sum", "count"], ["hidden"]),
    ]  # fmt: skip
    inputs = [IDS, _input(mask, TensorProto.INT64, "batch", "length")]
    return model(nodes, inputs, [STATE], table=TABLE, axis=np.array([2]), one=np.array([1]))


def gru(*, lengths: bool = False, outputs: Sequence[str] = ("hidden",)) -> onnx.ModelProto:
    """A GRU, with or without lengths: its last state `hidden`, or `states` of each position."""
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["embedded"]),
        helper.make_node("Transpose", ["embedded"], ["steps"], perm=[1, 0, 2]),
        helper.make_node(
            "GRU",
            ["steps", "input_weight", "state_weight", "bias", "lengths" if lengths else ""],
            ["each", "last"],
            hidden_size=HIDDEN,
            linear_before_reset=1,
        ),
        helper.make_node("Squeeze", ["last", "first"], ["hidden"]),
        helper.make_node("Squeeze", ["each", "second"], ["by_step"]),
        helper.make_node("Transpose", ["by_step"], ["states"], perm=[1, 0, 2]),
    ]
    return model(
        nodes,
        [IDS, LENGTHS] if lengths else [IDS],
        [{"hidden": STATE, "states": STATES}[name] for name in outputs],
        table=TABLE,
        input_weight=INPUT_WEIGHT[None],
        state_weight=STATE_WEIGHT[None],
        bias=BIAS[None],
        first=np.array([0]),
        second=np.array([1]),
    )


def save(proto: onnx.ModelProto, path: Path) -> Path:
    path.write_bytes(proto.SerializeToString())
    return path


def mean_of(ids: Sequence[int]) -> Array:
    """The state of one row, [HIDDEN]."""
    return TABLE[list(ids)].astype(np.float64).mean(axis=0)


def gru_states(ids: Sequence[int]) -> Array:
    """The state after each position of one row, [positions, HIDDEN]."""
    state, found = np.zeros(HIDDEN), []
    input_bias, state_bias = BIAS.astype(np.float64).reshape(2, 3, HIDDEN)
    for one in ids:
        from_input = (INPUT_WEIGHT.astype(np.float64) @ TABLE[one]).reshape(3, HIDDEN) + input_bias
        from_state = (STATE_WEIGHT.astype(np.float64) @ state).reshape(3, HIDDEN) + state_bias
        update, reset = 1 / (1 + np.exp(-(from_input[:2] + from_state[:2])))
        new = np.tanh(from_input[2] + reset * from_state[2])
        state = (1 - update) * new + update * state
        found.append(state)
    return np.array(found)


def with_places(num_places: int) -> onnx.ModelProto:
    """A mean of embeddings and of places, of which there are so many: longer rows fail."""
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["embedded"]),
        helper.make_node("Mul", ["ids", "none"], ["zeros"]),
        helper.make_node("Add", ["zeros", "one"], ["ones"]),
        helper.make_node("CumSum", ["ones", "axis"], ["place"], exclusive=1),
        helper.make_node("Gather", ["places", "place"], ["placed"]),
        helper.make_node("Add", ["embedded", "placed"], ["sum"]),
        helper.make_node("ReduceMean", ["sum", "axes"], ["hidden"], keepdims=0),
    ]
    return model(
        nodes,
        [IDS],
        [STATE],
        table=TABLE,
        places=np.zeros((num_places, HIDDEN), dtype=np.float32),
        none=np.array(0),
        one=np.array(1),
        axis=np.array(1),
        axes=np.array([1]),
    )
