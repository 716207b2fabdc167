"""Writes the trained encoder as ONNX: ids of words and the lengths of rows in, `hidden` out.

The graph is written node by node, as PyTorch's exporter leaves out the lengths of rows: with them
rows of different lengths run together. Matrices are stored in float16 and computed in float32.
"""

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from model import LanguageModel

OPSET, IR_VERSION = 17, 9
GATES = (0, 3, 1, 2)  # ONNX has input, output, forget, cell; PyTorch input, forget, cell, output


def onnx_encoder(model: LanguageModel) -> onnx.ModelProto:
    """The table, the LSTM and the projection; the state after the last word of each row."""
    memory = model.lstm.hidden_size
    nodes = [
        helper.make_node("Gather", ["table", "tokens"], ["vectors_f16"]),
        helper.make_node("Cast", ["vectors_f16"], ["vectors"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["vectors"], ["steps"], perm=[1, 0, 2]),
        helper.make_node("Cast", ["lengths"], ["lengths_i32"], to=TensorProto.INT32),
        *(
            helper.make_node("Cast", [f"{name}_f16"], [name], to=TensorProto.FLOAT)
            for name in ("W", "R", "P")
        ),
        helper.make_node(
            "LSTM", ["steps", "W", "R", "B", "lengths_i32"], ["", "last"], hidden_size=memory
        ),
        helper.make_node("Squeeze", ["last", "axis"], ["memory"]),
        helper.make_node("MatMul", ["memory", "P"], ["projected"]),
        helper.make_node("Add", ["projected", "p"], ["hidden"]),
    ]
    tokens = helper.make_tensor_value_info("tokens", TensorProto.INT64, ["batch", "length"])
    lengths = helper.make_tensor_value_info("lengths", TensorProto.INT64, ["batch"])
    size = model.projection.out_features
    hidden = helper.make_tensor_value_info("hidden", TensorProto.FLOAT, ["batch", size])
    weights = [numpy_helper.from_array(array, name) for name, array in arrays_of(model).items()]
    graph = helper.make_graph(nodes, "encoder", [tokens, lengths], [hidden], weights)
    made = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
    )
    onnx.checker.check_model(made, full_check=True)
    return made


def arrays_of(model: LanguageModel) -> dict[str, np.ndarray]:
    """The constants of the graph, in ONNX's layout."""
    saved = {name: value.numpy() for name, value in model.state_dict().items()}
    biases = [gates(saved[f"lstm.bias_{side}_l0"]) for side in ("ih", "hh")]
    return {
        "table": saved["table.weight"].astype(np.float16),
        "W_f16": gates(saved["lstm.weight_ih_l0"])[None].astype(np.float16),
        "R_f16": gates(saved["lstm.weight_hh_l0"])[None].astype(np.float16),
        "B": np.concatenate(biases)[None],
        "P_f16": np.ascontiguousarray(saved["projection.weight"].T).astype(np.float16),
        "p": saved["projection.bias"],
        "axis": np.array([0]),
    }


def gates(rows: np.ndarray) -> np.ndarray:
    """The rows of the four gates in ONNX's order."""
    return np.concatenate([np.split(rows, 4)[i] for i in GATES])


@torch.no_grad()
def round_to_float16(model: LanguageModel) -> None:
    """Round every matrix as it is stored, so that what is measured is what is stored."""
    for weight in model.parameters():
        if weight.dim() > 1:
            weight.copy_(weight.half())
