"""A device that fails while the service runs: 503 for requests in flight, and no more liveness."""

import asyncio
from dataclasses import replace

import pytest

from hsoftmax.runtime.device_runs import DeviceRuns
from hsoftmax.runtime.devices import is_device_loss
from hsoftmax.runtime.sessions import Session
from hsoftmax.service.errors import DeviceFailed, DeviceFull, InferenceFailed, NotAlive
from hsoftmax.service.health import Health

from .conftest import held, rows

# As ONNX Runtime writes them.
ILLEGAL_ACCESS = (
    "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Non-zero status code returned while running "
    "Gather node. CUDA failure 700: an illegal memory access was encountered ; GPU=0 ; "
    "hostname=host ; expr=cudaStreamSynchronize(static_cast<cudaStream_t>(GetHandle()));"
)
CUBLAS_INTERNAL = "CUBLAS failure 14: CUBLAS_STATUS_INTERNAL_ERROR ; GPU=0 ; expr=cublasGemmEx(...)"
OUT_OF_MEMORY = (
    "[ONNXRuntimeError] : 1 : FAIL : Failed to allocate memory for requested buffer of size 171798",
    "CUDA failure 2: out of memory ; GPU=0 ; hostname=host ; expr=cudaMalloc((void**)&p, size);",
    "CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED ; GPU=0 ; expr=cublasCreate(&handle);",
    "[ONNXRuntimeError] : 1 : FAIL : /onnxruntime_src/onnxruntime/core/framework/bfc_arena.cc:360 "
    "Available memory of 0 is smaller than requested bytes of 8000000",
)


class FailingRuntime:
    """Raises what ONNX Runtime raises."""

    def __init__(self, message: str) -> None:
        self.message = message

    def run(self, names, feeds, options):
        raise RuntimeError(self.message)


def on_device(message: str) -> Session:
    runs = DeviceRuns(FailingRuntime(message))
    return replace(held(), on_cpu=False, device_runs=runs)


async def outcomes(engine, session: Session, calls: int) -> list[object]:
    waiting = [engine.submit(rows(session, number)) for number in range(calls)]
    return await asyncio.gather(*waiting, return_exceptions=True)


@pytest.mark.parametrize("message", [ILLEGAL_ACCESS, CUBLAS_INTERNAL])
def test_requests_get_503_and_liveness_fails_when_the_device_is_lost(start, message):
    engine = start()
    Health().expect_alive(engine)
    failed = asyncio.run(outcomes(engine, on_device(message), 5))
    assert [type(error) for error in failed] == [DeviceFailed] * 5
    assert {(error.status, error.code) for error in failed} == {(503, "device_lost")}
    assert all("CUDA" not in str(error) and "CUBLAS" not in str(error) for error in failed)
    with pytest.raises(NotAlive, match="not alive: the device is lost"):
        Health().expect_alive(engine)


@pytest.mark.parametrize("message", OUT_OF_MEMORY)
def test_too_little_memory_for_one_run_is_no_loss_but_503_for_that_run(start, message):
    engine = start()
    failed = asyncio.run(outcomes(engine, on_device(message), 2))
    assert [type(error) for error in failed] == [DeviceFull] * 2
    assert {(error.status, error.code) for error in failed} == {(503, "device_out_of_memory")}
    assert all("CUDA" not in str(error) and "alloc" not in str(error) for error in failed)
    Health().expect_alive(engine)


def test_an_error_of_the_cpu_is_no_loss(start):
    engine = start()
    session = replace(held(), runtime=FailingRuntime(ILLEGAL_ACCESS))
    failed = asyncio.run(outcomes(engine, session, 1))
    assert [type(error) for error in failed] == [InferenceFailed]
    Health().expect_alive(engine)


@pytest.mark.parametrize("message", ["", "a graph with 700 nodes", "CUDA is not there"])
def test_other_errors_are_no_loss(message):
    assert not is_device_loss(RuntimeError(message))
