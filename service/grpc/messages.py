"""The messages and the methods of `inference.proto`, from its compiled descriptor.

The descriptor is data: protobuf of any version builds the message classes from it, where generated
code fits only some versions. The pool is private, as the default pool holds one definition of a
message, and clients in the same process (tritonclient, kserve) bring their own.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

Message = Any  # a protobuf message of a class that is built at run time

DESCRIPTOR_FILE = Path(__file__).with_name("inference.binpb")
SERVICE = "inference.GRPCInferenceService"
HEALTH_SERVICE = "grpc.health.v1.Health"
REFLECTION_SERVICE = "grpc.reflection.v1alpha.ServerReflection"


def _pool() -> descriptor_pool.DescriptorPool:
    """Build a pool of all services' messages; reflection answers from it."""
    pool = descriptor_pool.DescriptorPool()
    for module in (health_pb2, reflection_pb2):
        pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
    files = descriptor_pb2.FileDescriptorSet.FromString(DESCRIPTOR_FILE.read_bytes())
    for file in files.file:
        pool.AddSerializedFile(file.SerializeToString())
    return pool


POOL = _pool()


def message_type(name: str) -> Any:  # noqa: ANN401
    """Return the class of a message, by its name in `inference.proto`."""
    return message_factory.GetMessageClass(POOL.FindMessageTypeByName(f"inference.{name}"))


def method_names() -> Mapping[str, str]:
    """Return the full path of each method of the service, by its name."""
    service = POOL.FindServiceByName(SERVICE)
    return {method.name: f"/{SERVICE}/{method.name}" for method in service.methods}


ModelInferRequest = message_type("ModelInferRequest")
ModelInferResponse = message_type("ModelInferResponse")
ModelStreamInferResponse = message_type("ModelStreamInferResponse")
