"""The server beside HTTP: its port, workers, TLS, and how it stops."""

import json
import re
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import grpc
import numpy as np
import pytest

from hsoftmax.service import Settings, StartError, serve
from hsoftmax.service.grpc.messages import SERVICE, ModelInferResponse, message_type
from hsoftmax.service.server import held_ports
from hsoftmax.service.workers.listener import hold_port, listen
from tests.service.conftest import HIDDEN

from .conftest import raw_request, serving_grpc

ServerReadyResponse = message_type("ServerReadyResponse")


def address_of(process) -> str:
    lines = (json.loads(line) for line in process.read_log().splitlines() if '"serving"' in line)
    return next(lines)["grpc"]


def channel_to(address: str) -> grpc.Channel:
    """A channel with a connection of its own."""
    return grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)])


def method(channel: grpc.Channel, name: str, response_type=ModelInferResponse):
    return channel.unary_unary(
        f"/{SERVICE}/{name}", lambda message: message.SerializeToString(), response_type.FromString
    )


def ready(channel: grpc.Channel) -> bool:
    request = message_type("ServerReadyRequest")()
    return method(channel, "ServerReady", ServerReadyResponse)(request, timeout=10).ready


REQUEST = raw_request("plain", hidden=np.ones((1, HIDDEN), np.float32))


def test_it_stops_like_http_after_a_delay_in_which_it_is_unready(start):
    process = start(grpc_port=0, drain_delay=1.5)
    with channel_to(address_of(process)) as channel:
        assert ready(channel)
        process.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + 1
        while ready(channel) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not ready(channel)
        assert method(channel, "ModelInfer")(REQUEST, timeout=10).model_name == "plain"
        assert process.process.wait(10) == 0
    assert '"level":"error"' not in process.read_log()


SLOW = """
import asyncio
from hsoftmax import service
from hsoftmax.service.grpc import infer

answer = infer._answer

async def slow(*arguments):
    await asyncio.sleep(1.5)
    return await answer(*arguments)

infer._answer = slow
service.serve(service.Settings())
"""


def test_calls_that_run_are_answered_before_it_stops_and_streams_end(start):
    process = start(run=SLOW, grpc_port=0)
    with channel_to(address_of(process)) as channel:
        call = method(channel, "ModelInfer").future(REQUEST, timeout=20)
        never = threading.Event()
        stream = channel.stream_stream(f"/{SERVICE}/ModelStreamInfer")(
            iter(lambda: never.wait(20), True)
        )
        time.sleep(0.5)  # the server has both
        process.process.send_signal(signal.SIGTERM)
        assert call.result().model_name == "plain"
        assert stream.code() == grpc.StatusCode.UNAVAILABLE
        never.set()
        assert process.process.wait(10) == 0


def test_workers_share_the_port(start):
    process = start(grpc_port=0, workers=2, waits_for="serving")
    process.until("loaded")
    process.until("loaded")
    deadline, workers = time.monotonic() + 30, set()
    while workers != {0, 1}:
        assert time.monotonic() < deadline, workers
        with channel_to(address_of(process)) as channel:
            method(channel, "ModelInfer")(REQUEST, timeout=10)
        workers = {
            json.loads(line)["worker"]
            for line in process.read_log().splitlines()
            if '"event":"request"' in line
        }
    process.process.send_signal(signal.SIGTERM)
    assert process.process.wait(20) == 0


def make_certificate(certificate: Path, key: Path) -> None:
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"]
    files = ["-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", certificate]
    subprocess.run([*make, *files], check=True, capture_output=True)


def test_tls_is_that_of_http_and_a_renewed_certificate_needs_no_restart(repository, tmp_path):
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    make_certificate(certificate, key)
    with serving_grpc(repository, tls_certfile=certificate, tls_keyfile=key) as service:
        address = f"localhost:{service.server.port}"
        credentials = grpc.ssl_channel_credentials(certificate.read_bytes())
        with grpc.secure_channel(address, credentials) as channel:
            assert ready(channel)
        with channel_to(address) as channel, pytest.raises(grpc.RpcError) as refused:
            ready(channel)
        assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
        certificate.write_text("broken")
        with grpc.secure_channel(address, credentials) as channel:
            assert ready(channel)  # the old one is still in use
        make_certificate(certificate, key)
        credentials = grpc.ssl_channel_credentials(certificate.read_bytes())
        with grpc.secure_channel(address, credentials) as channel:
            assert ready(channel)


def test_a_held_port_is_for_this_service_alone():
    with hold_port("127.0.0.1", 0) as port:
        with pytest.raises(StartError, match=f"cannot listen on 127.0.0.1:{port}"):
            listen("127.0.0.1", port)
        with (
            pytest.raises(StartError, match=f"cannot listen on 127.0.0.1:{port}"),
            hold_port("127.0.0.1", port),
        ):
            pass
        with socket.socket() as shared:
            shared.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            shared.bind(("127.0.0.1", port))
            shared.listen()


def test_a_port_that_is_taken_is_refused_before_anything_starts(repository):
    with listen("127.0.0.1", 0) as taken:
        settings = Settings(repository=repository, port=0, grpc_port=taken.getsockname()[1])
        with pytest.raises(StartError, match=r"cannot listen on 127\.0\.0\.1:\d+: Address already"):
            serve(settings)


def test_without_the_packages_one_line_names_the_extra(repository, monkeypatch):
    found = held_ports.find_spec
    monkeypatch.setattr(
        held_ports, "find_spec", lambda name: None if name == "grpc_health" else found(name)
    )
    sentence = "grpc_port: expected the package grpc_health, got none: pip install '.[grpc]'"
    with pytest.raises(StartError, match=re.escape(sentence)):
        serve(Settings(repository=repository, port=0, grpc_port=0))


WITHOUT_GRPC = """
import sys

class NoGrpc:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"grpc", "grpc_health", "grpc_reflection", "google"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, NoGrpc())
from hsoftmax import service
service.serve(service.Settings())
"""


def test_without_the_packages_http_is_served(start):
    process = start(run=WITHOUT_GRPC)
    assert process.get("/healthz/ready")[0] == 200
    assert '"grpc"' not in process.read_log()
