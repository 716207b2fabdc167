"""The compiled descriptor is that of `inference.proto`, and the service has all its methods."""

from google.protobuf import descriptor_pb2
from grpc_tools import protoc

from hsoftmax.service.grpc.inference_methods import inference_methods
from hsoftmax.service.grpc.messages import DESCRIPTOR_FILE, method_names


def test_the_descriptor_is_compiled_from_the_proto_file(tmp_path):
    folder, output = DESCRIPTOR_FILE.parent, tmp_path / "inference.binpb"
    arguments = ["", f"-I{folder}", f"--descriptor_set_out={output}", "inference.proto"]
    assert protoc.main(arguments) == 0
    files = descriptor_pb2.FileDescriptorSet
    compiled = files.FromString(output.read_bytes())
    kept = files.FromString(DESCRIPTOR_FILE.read_bytes())
    assert kept == compiled, "run `make proto`"


def test_every_method_of_the_proto_file_is_answered():
    assert {method.path for method in inference_methods()} == set(method_names().values())
