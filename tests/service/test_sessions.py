"""Devices are what they say they are."""

import onnxruntime as ort
import pytest

from service import Settings, StartError, create_app
from service.sessions import CPU, CUDA, choose_device

has_cuda = CUDA in ort.get_available_providers()


@pytest.mark.skipif(has_cuda, reason="this machine may have CUDA")
def test_cuda_without_cuda_is_an_error_and_never_the_cpu(repository):
    with pytest.raises(StartError, match="device: expected cuda, got none"):
        create_app(Settings(repository=repository, device="cuda"))


@pytest.mark.skipif(has_cuda, reason="this machine may have CUDA")
def test_auto_is_the_cpu_where_there_is_no_cuda():
    assert choose_device("auto").name == "cpu"


def test_cpu_is_the_cpu():
    assert choose_device("cpu").providers == (CPU,)


def test_cuda_that_is_built_in_but_does_not_come_up_is_an_error(monkeypatch):
    """A GPU runtime on a machine without a driver: ONNX Runtime itself would fall back."""
    monkeypatch.setattr(ort, "get_available_providers", lambda: [CUDA, CPU])
    if has_cuda:
        pytest.skip("this machine may have CUDA")
    with pytest.warns(UserWarning, match="not in available"):
        assert choose_device("auto").name == "cpu"
    with (
        pytest.warns(UserWarning, match="not in available"),
        pytest.raises(StartError, match="expected cuda, got none"),
    ):
        choose_device("cuda")


@pytest.mark.gpu
def test_cuda_computes_without_tf32():
    device = choose_device("cuda")
    assert device.name == "cuda"
    assert device.providers[0] == (CUDA, {"use_tf32": "0"})
