"""Opens the session of a bundle's encoder."""

from hsoftmax.bundle import Bundle, BundleError, Graph
from hsoftmax.runtime.device_runs import DeviceRuns
from hsoftmax.runtime.devices import CPU, Device
from hsoftmax.runtime.weights_guard import WeightsGuard

from .graph_file import open_graph, open_graph_on, reserve_weights
from .session import Session, expect_ports
from .thread_pool import shared_pool_options, use_single_thread

ENCODER = "encoder"  # the task of an encoder's session


def open_encoder_session(bundle: Bundle, device: Device | None = None) -> Session:
    """Open the session of the bundle's encoder: on the device, or on the CPU, one thread a run.

    Raises:
        OutOfDeviceMemory: its weights do not fit the device.
        BundleError: the bundle has no encoder, or its graph does not load or fit the manifest.
    """
    encoder = bundle.manifest.encoder
    if encoder is None:
        raise BundleError(f"{bundle.path}: expected an encoder, got none")
    graph = Graph(file=encoder.file, inputs=encoder.inputs, outputs=encoder.outputs)
    guard = None if encoder.weights is None else WeightsGuard(bundle.file(encoder.weights))
    options = shared_pool_options()
    use_single_thread(options)
    path = bundle.file(encoder.file)
    if device is None or device.providers == (CPU,):
        runtime = open_graph(path, options, [CPU], weights=encoder.weights, prepacking=True)
        session = Session(ENCODER, graph, runtime, weights=guard)
    else:
        runtime = open_graph_on(device, path, options, weights=encoder.weights, prepacking=True)
        if device.memory is not None:
            weights = bundle.file(encoder.weights or encoder.file)
            reserve_weights(path, device.memory, weights.stat().st_size, runtime)
        runs = DeviceRuns(runtime, lock=device.lock)
        session = Session(ENCODER, graph, runtime, on_cpu=False, weights=guard, device_runs=runs)
    expect_ports(session)
    return session
