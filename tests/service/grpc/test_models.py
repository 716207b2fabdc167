"""The methods that describe models and the repository."""

import shutil

import grpc
import pytest
from google.protobuf.json_format import MessageToDict

from hsoftmax.service.grpc.messages import message_type
from hsoftmax.service.inference.tensors import metadata
from hsoftmax.service.inference.tensors.metadata import EXTENSIONS

from .conftest import expect_status, raw_request, serving_grpc

ADMIN = [("authorization", "Bearer root")]


def test_the_server_says_what_it_is(service):
    answer = service.call("ServerMetadata")
    assert answer.name == "hsoftmax"
    assert tuple(answer.extensions) == EXTENSIONS


@pytest.mark.parametrize(
    ("fields", "is_ready"),
    [
        ({"name": "words"}, True), ({"name": "words", "version": "1"}, True),
        ({"name": "words", "version": "9"}, False), ({"name": "nonesuch"}, False), ({}, False),
    ],
)  # fmt: skip
def test_a_model_that_is_served_is_ready(service, fields, is_ready):
    assert service.call("ModelReady", **fields).ready is is_ready


@pytest.mark.parametrize("version", ["", "1"])
def test_metadata_are_those_of_rest(service, version):
    answer = service.call("ModelMetadata", name="words", version=version)
    bundle = service.context.repository.find("words", version or None)
    expected = metadata.model_metadata(bundle, ["1", "2"])
    del expected["properties"]  # REST alone has them
    got = MessageToDict(answer, preserving_proto_field_name=True)
    for tensor in (*got["inputs"], *got["outputs"]):
        tensor["shape"] = [int(size) for size in tensor["shape"]]  # JSON has int64 as texts
    assert got == expected


def test_config_is_that_of_rest_without_a_loss(service):
    answer = service.call("ModelConfig", name="words").config
    expected = metadata.model_config(service.context.repository.find("words"))
    got = MessageToDict(
        answer, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    assert got["input"] == [
        {**one, "dims": [str(size) for size in one["dims"]]} for one in expected["input"]
    ]
    assert got["parameters"] == expected["parameters"]
    assert (got["backend"], got["max_batch_size"]) == (expected["backend"], 0)
    assert got["dynamic_batching"]["priority_levels"] == "2"


@pytest.mark.parametrize("name", ["ModelMetadata", "ModelConfig", "ModelStatistics"])
def test_an_unknown_model_is_not_found(service, name):
    with expect_status(grpc.StatusCode.NOT_FOUND, "bundle 'nonesuch' is not served here"):
        service.call(name, name="nonesuch")


def test_statistics_count_rows(service, hidden):
    def count(**fields) -> dict[tuple[str, str], int]:
        stats = service.call("ModelStatistics", **fields).model_stats
        return {(one.name, one.version): one.inference_count for one in stats}

    before = count()
    assert set(before) == {("plain", "7"), ("words", "1"), ("words", "2")}
    service.call("ModelInfer", raw_request("words", hidden=hidden, version="1"))
    assert count() == {**before, ("words", "1"): before["words", "1"] + 3}
    assert set(count(name="words")) == {("words", "1"), ("words", "2")}
    assert set(count(name="words", version="2")) == {("words", "2")}


def test_statistics_count_failures(service, hidden):
    def failures() -> int:
        (stats,) = service.call("ModelStatistics", name="plain").model_stats
        return stats.inference_stats.fail.count

    before = failures()
    wrong = raw_request("plain", hidden=hidden)
    wrong.raw_input_contents[0] = b""
    for request in (wrong, raw_request("plain", hidden=hidden[:, :2])):
        with expect_status(grpc.StatusCode.INVALID_ARGUMENT):
            service.call("ModelInfer", request)
    assert failures() == before + 2


def test_the_index_has_every_version_with_its_state(copy):
    (copy / "words" / "1" / "top_k.onnx").write_bytes(b"damaged")
    with serving_grpc(copy) as service:
        index = service.call("RepositoryIndex").models
        states = {(one.name, one.version): one.state for one in index}
        assert states == {
            ("plain", "7"): "READY", ("words", "1"): "UNAVAILABLE", ("words", "2"): "READY",
        }  # fmt: skip
        (reason,) = (one.reason for one in index if one.state == "UNAVAILABLE")
        assert "top_k.onnx" in reason
        ready = service.call("RepositoryIndex", ready=True).models
        assert {one.state for one in ready} == {"READY"}


def test_load_and_unload_need_the_admin_key(copy, spare):
    with serving_grpc(copy, admin_key="root") as service:
        for name in ("RepositoryModelUnload", "RepositoryModelLoad"):
            with expect_status(grpc.StatusCode.UNAUTHENTICATED):
                service.call(name, model_name="words")
            with expect_status(grpc.StatusCode.PERMISSION_DENIED):
                service.call(name, model_name="words", metadata=[("authorization", "Bearer x")])
        service.call("RepositoryModelUnload", model_name="words", metadata=ADMIN)
        assert not service.call("ModelReady", name="words").ready
        shutil.move(spare, copy / "words" / "3")
        assert service.call("RepositoryModelLoad", model_name="words", metadata=ADMIN).isLoaded
        assert service.call("ModelReady", name="words", version="3").ready
        # KServe's clients send the name as the first field.
        service.call("RepositoryModelUnload", repository_name="words", metadata=ADMIN)
        assert not service.call("ModelReady", name="words").ready
        with expect_status(grpc.StatusCode.NOT_FOUND):
            service.call("RepositoryModelUnload", model_name="nonesuch", metadata=ADMIN)


def test_a_version_that_cannot_be_loaded_is_said(copy, spare):
    with serving_grpc(copy, admin_key="root") as service:
        (spare / "top_k.onnx").write_bytes(b"damaged")
        shutil.move(spare, copy / "words" / "3")
        with pytest.raises(grpc.RpcError) as refused:
            service.call("RepositoryModelLoad", model_name="words", metadata=ADMIN)
        assert refused.value.code() == grpc.StatusCode.FAILED_PRECONDITION
        assert refused.value.details().startswith("load: words/3/top_k.onnx: expected")
        assert service.call("ModelReady", name="words").ready


def test_other_configurations_are_not_loaded(repository):
    with serving_grpc(repository, admin_key="root") as service:
        load = message_type("RepositoryModelLoadRequest")(model_name="words")
        load.parameters["config"].string_param = "{}"
        with expect_status(grpc.StatusCode.INVALID_ARGUMENT, "parameters: expected none"):
            service.call("RepositoryModelLoad", load, metadata=ADMIN)
        unload = message_type("RepositoryModelUnloadRequest")(model_name="words")
        unload.parameters["unload_dependents"].bool_param = False
        assert service.call("RepositoryModelUnload", unload, metadata=ADMIN).isUnloaded
