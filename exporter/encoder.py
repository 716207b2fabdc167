"""Puts an encoder beside the head: an ONNX model that ends in the hidden state of the head.

`export` calls it. The inputs, the output and the meaning of a position are taken from the model and
from the options; none of them is guessed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import onnx

from hsoftmax import bundle
from hsoftmax.runtime.encoder import open_encoder
from hsoftmax.runtime.encoder_batches import make_batches
from hsoftmax.runtime.encoder_inputs import read_rows
from hsoftmax.runtime.sessions import InputOrOutput, open_session
from hsoftmax.runtime.tokenizer import TokenizerError, open_tokenizer

from .choices import EncoderPosition
from .errors import EncoderRefused
from .storage.encoder_file import (
    ENCODER,
    count_multiply_adds,
    keep_output,
    read_encoder,
    write_encoder_file,
)
from .verification.encoder_check import EncoderProbe, check_encoder, count_ids, drawn_rows

TOKENIZER = "tokenizer.json"
_WELL_KNOWN_MASK = "attention_mask"
_DTYPES: dict[str, bundle.Dtype] = {
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(float)": "float32",
    "tensor(bool)": "bool",
}
_STATE_AXES, _SEQUENCE_AXES = 2, 3  # [batch, hidden_size] and [batch, length, hidden_size]


@dataclass(frozen=True)
class EncoderOptions:
    """The ONNX file of an encoder, and facts about it.

    Attributes:
        output: the output that is `hidden`; the only one by default
        position: the position of a sequence whose state is `hidden`, where the output has them
        mask: the input that marks real positions; `attention_mask` if there is one
        lengths: the input that has the number of positions of each row
        tokenizer: a `tokenizer.json`, or a list of words, that turns text into the ids of tokens
    """

    path: Path
    output: str | None = None
    position: EncoderPosition | None = None
    mask: str | None = None
    lengths: str | None = None
    tokenizer: Path | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that the encoder is read from, those of external data left out."""
        return (self.path,) if self.tokenizer is None else (self.path, self.tokenizer)


def verify_encoder(opened: bundle.Bundle) -> bool:
    """Check the encoder of a bundle as the export did; return False if there is none.

    Raises:
        bundle.BundleError, EncoderRefused: the encoder or its tokenizer does not load, or fails.
    """
    encoder = open_encoder(opened)
    if encoder is None:
        return False
    check_encoder(EncoderProbe(encoder.description, encoder.session.runtime))
    return True


def write_tokenizer(folder: Path, path: Path, encoder: bundle.Encoder) -> str:
    """Copy a tokenizer into the folder of a bundle, check it, and return the file's name.

    Raises:
        EncoderRefused: it is no tokenizer, or has ids that the encoder lacks.
    """
    try:
        bundle.expect_regular(path)
        open_tokenizer(path, encoder)
    except bundle.BundleError as error:
        raise EncoderRefused(str(error)) from None
    except (TokenizerError, bundle.NotRegularFile) as error:
        raise EncoderRefused(f"{path}: {error}") from None
    (folder / TOKENIZER).write_bytes(path.read_bytes())
    return TOKENIZER


def write_encoder(folder: Path, options: EncoderOptions, hidden_size: int | None) -> bundle.Encoder:
    """Write the encoder into the folder of a bundle, check it, and return its description.

    Raises:
        EncoderRefused: the model does not load or run, or does not fit the options or the head.
    """
    try:
        return _write(folder, options, hidden_size)
    except EncoderRefused as error:
        raise EncoderRefused(f"{options.path}: {error}") from None
    except bundle.BundleError as error:
        reason = str(error).partition(": ")[2]
        raise EncoderRefused(f"{options.path}: {reason}") from None


def _write(folder: Path, options: EncoderOptions, hidden_size: int | None) -> bundle.Encoder:
    if hidden_size is None:
        raise EncoderRefused("expected a head that reads hidden states, got one that does not")
    model = read_encoder(options.path)
    output = _choose_output(model, options.output)
    keep_output(model, output)
    multiply_adds = count_multiply_adds(model)
    weights = write_encoder_file(model, folder)
    session = open_session(folder / ENCODER)
    _expect_float(session.get_outputs()[0])
    inputs = tuple(map(_port, session.get_inputs()))
    mask, lengths = _mask(inputs, options), _lengths(inputs, options)
    describe = partial(
        bundle.Encoder,
        file=ENCODER,
        weights=weights,
        inputs=inputs,
        mask=mask,
        lengths=lengths,
        multiply_adds=multiply_adds,
    )
    state = bundle.Port(name=output, dtype="float32", shape=("batch", hidden_size))
    if {port.name for port in inputs} <= {mask, lengths}:
        raise EncoderRefused("expected an input beside mask and lengths, got none")
    probe = EncoderProbe(describe(outputs=(state,), position=None), session)
    num_ids = count_ids(probe)
    axes = _count_axes(probe, num_ids, hidden_size)
    position = _position(output, axes, options.position)
    if position is not None:
        state = state.model_copy(update={"shape": ("batch", "length", hidden_size)})
    described = describe(outputs=(state,), position=position, num_ids=num_ids)
    check_encoder(EncoderProbe(described, session))
    return described


def _choose_output(model: onnx.ModelProto, chosen: str | None) -> str:
    names: list[str] = [output.name for output in model.graph.output]
    if chosen is None and len(names) == 1:
        return names[0]
    if chosen is None or chosen not in names:
        got = "none" if chosen is None else repr(chosen)
        raise EncoderRefused(
            f"expected the output that is the hidden state, one of {', '.join(names)}, got {got}: "
            "name it with --encoder-output"
        )
    return chosen


def _expect_float(output: InputOrOutput) -> None:
    if output.type != "tensor(float)":
        raise EncoderRefused(f"output {output.name}: expected float32, got {output.type}")


def _port(declared: InputOrOutput) -> bundle.Port:
    """Describe an input: [batch], [batch, length or size], and then sizes only."""
    name, shape = declared.name, list(declared.shape)
    dtype = _DTYPES.get(declared.type)
    if dtype is None:
        raise EncoderRefused(
            f"input {name}: expected {', '.join(_DTYPES.values())}, got {declared.type}"
        )
    if not shape or isinstance(shape[0], int):
        raise EncoderRefused(
            f"input {name}: expected a free first dimension, the batch, got {shape}: "
            "export the model with a dynamic first axis"
        )
    if not all(isinstance(size, int) for size in shape[2:]):
        raise EncoderRefused(
            f"input {name}: expected fixed sizes after the second dimension, got {shape}"
        )
    second = [size if isinstance(size, int) else "length" for size in shape[1:2]]
    return bundle.Port(name=name, dtype=dtype, shape=("batch", *second, *shape[2:]))


def _mask(inputs: Sequence[bundle.Port], options: EncoderOptions) -> str | None:
    name = options.mask
    if name is None:
        return _WELL_KNOWN_MASK if _WELL_KNOWN_MASK in {port.name for port in inputs} else None
    if len(_named(inputs, name, "--encoder-mask").shape) != 2:
        raise EncoderRefused(f"input {name}: expected a mask [batch, length], got other dimensions")
    return name


def _lengths(inputs: Sequence[bundle.Port], options: EncoderOptions) -> str | None:
    name = options.lengths
    if name is None:
        return None
    port = _named(inputs, name, "--encoder-lengths")
    if len(port.shape) != 1 or port.dtype not in {"int64", "int32"}:
        raise EncoderRefused(
            f"input {name}: expected lengths, integers [batch], got {port.dtype} "
            f"[{', '.join(map(str, port.shape))}]"
        )
    return name


def _named(inputs: Sequence[bundle.Port], name: str, option: str) -> bundle.Port:
    for port in inputs:
        if port.name == name:
            return port
    names = ", ".join(port.name for port in inputs)
    raise EncoderRefused(f"{option}: expected one of the inputs {names}, got {name!r}")


def _count_axes(probe: EncoderProbe, num_ids: dict[str, int], hidden_size: int) -> int:
    """Run the model and return the axes of its output. Raises EncoderRefused for wrong sizes."""
    described = probe.description.model_copy(update={"num_ids": num_ids})
    [batch] = make_batches(described, read_rows(described, drawn_rows(described, [8, 8])))
    shape = list(probe.run(batch.feeds).shape)
    name = described.outputs[0].name
    if len(shape) not in {_STATE_AXES, _SEQUENCE_AXES} or shape[0] != 2:
        raise EncoderRefused(
            f"output {name}: expected [batch, {hidden_size}] or [batch, length, {hidden_size}], "
            f"got {shape} for 2 rows: choose another with --encoder-output"
        )
    if shape[-1] != hidden_size:
        raise EncoderRefused(
            f"output {name}: expected states of {hidden_size} numbers, as the head reads, "
            f"got {shape[-1]}"
        )
    return len(shape)


def _position(output: str, axes: int, chosen: EncoderPosition | None) -> EncoderPosition | None:
    if axes == _STATE_AXES and chosen is not None:
        raise EncoderRefused(
            f"output {output}: expected no --encoder-position, as it has one state a row, "
            f"got {chosen}"
        )
    if axes == _SEQUENCE_AXES and chosen is None:
        raise EncoderRefused(
            f"output {output}: expected --encoder-position first, last or each, as it has a state "
            "for each position, got none"
        )
    return chosen
