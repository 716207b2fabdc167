"""The standard services: health, as load balancers ask for it, and reflection."""

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from hsoftmax.service.grpc.messages import SERVICE

from .conftest import expect_status, serving_grpc

Request = health_pb2.HealthCheckRequest
SERVING, NOT_SERVING = (
    health_pb2.HealthCheckResponse.SERVING,
    health_pb2.HealthCheckResponse.NOT_SERVING,
)


@pytest.mark.parametrize("name", ["", SERVICE])
def test_the_service_is_serving(service, name):
    health = health_pb2_grpc.HealthStub(service.channel)
    assert health.Check(Request(service=name)).status == SERVING


def test_an_unknown_service_is_not_found(service):
    health = health_pb2_grpc.HealthStub(service.channel)
    with expect_status(grpc.StatusCode.NOT_FOUND, "service: expected inference"):
        health.Check(Request(service="nonesuch"))
    watch = health.Watch(Request(service="nonesuch"))
    assert next(watch).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
    watch.cancel()


def test_a_watch_says_when_the_service_drains_and_ends_with_it(repository):
    with serving_grpc(repository) as service:
        health = health_pb2_grpc.HealthStub(service.channel)
        watch = health.Watch(Request())
        assert next(watch).status == SERVING
        service.context.health.draining = True
        assert next(watch).status == NOT_SERVING
        assert health.Check(Request()).status == NOT_SERVING
        assert not service.call("ServerReady").ready
        assert not service.call("ModelReady", name="words").ready
        assert service.call("ServerLive").live
        service.run(service.server.stop(10))
        assert list(watch) == []


def test_reflection_lists_the_services_and_their_messages(service):
    database = ProtoReflectionDescriptorDatabase(service.channel)
    assert set(database.get_services()) == {
        SERVICE, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection",
    }  # fmt: skip
    pool = DescriptorPool(database)
    found = pool.FindServiceByName(SERVICE)
    infer = found.methods_by_name["ModelInfer"]
    assert infer.input_type.fields_by_name["raw_input_contents"].number == 7
    assert pool.FindServiceByName("grpc.health.v1.Health").methods_by_name["Check"]
