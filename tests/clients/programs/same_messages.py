"""Compares a compiled descriptor with the messages that a client brings: names and numbers."""

from pathlib import Path

from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import Descriptor, FileDescriptor

# Repository calls have other fields in KServe's protocol than in Triton's; the service has both.
_BOTH = ("RepositoryModel",)


def check(descriptor: Path, theirs: list[FileDescriptor]) -> int:
    """Compare all messages that both have; return the number of fields that are the same."""
    (file,) = descriptor_pb2.FileDescriptorSet.FromString(descriptor.read_bytes()).file
    ours = {name: fields for one in file.message_type for name, fields in _ours(one, "")}
    known: dict[str, dict[str, tuple]] = {}
    for their_file in theirs:
        for one in their_file.message_types_by_name.values():
            known.update(_theirs(one, ""))
    both = [name for name in ours if name in known and not name.startswith(_BOTH)]
    return sum(_same_fields(name, ours[name], known[name]) for name in both)


def _same_fields(name: str, ours: dict[str, tuple], theirs: dict[str, tuple]) -> int:
    """Check that a name or a number that both have is that of the same field."""
    numbers = {shape[0]: field for field, shape in theirs.items()}
    for field, shape in ours.items():
        assert theirs.get(field, shape) == shape, (name, field, theirs[field], shape)
        assert numbers.get(shape[0], field) == field, (name, field, numbers[shape[0]])
    return len(ours.keys() & theirs.keys())


def _ours(message: descriptor_pb2.DescriptorProto, prefix: str):
    name = f"{prefix}{message.name}"
    repeated = descriptor_pb2.FieldDescriptorProto.LABEL_REPEATED
    yield name, {one.name: (one.number, one.type, one.label == repeated) for one in message.field}
    for nested in message.nested_type:
        yield from _ours(nested, f"{name}.")


def _theirs(message: Descriptor, prefix: str):
    name = f"{prefix}{message.name}"
    yield name, {one.name: (one.number, one.type, one.is_repeated) for one in message.fields}
    for nested in message.nested_types:
        yield from _theirs(nested, f"{name}.")
