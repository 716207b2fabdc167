"""Runs the graphs of a bundle on disk, with one thread for each run.

A graph of many small products gains more from two batches at once than from two threads in one
batch. A row's result then does not depend on the number of threads either.
"""

from dataclasses import replace
from threading import Lock

from hsoftmax.bundle import Bundle
from hsoftmax.models.arrays import Array
from hsoftmax.runtime.choices import NativeChoice
from hsoftmax.runtime.encoder import open_encoder
from hsoftmax.runtime.native import has_kernel
from hsoftmax.runtime.row_encoder import RowEncoder
from hsoftmax.runtime.sessions import Session, choose_native, open_single_thread_session
from hsoftmax.scoring import BundleInfo, GraphRequest, ScoringError, graph_inputs


def bundle_info_of(opened: Bundle, native: frozenset[str] = frozenset()) -> BundleInfo:
    """Return the facts of a bundle with its encoder, which reads rows.

    Raises:
        UserError: a layer that is no softmax, or an encoder that does not run.
    """
    facts = BundleInfo.of(opened, native)
    encoder = open_encoder(opened)
    return facts if encoder is None else replace(facts, encoder=RowEncoder(encoder))


class LocalGraphRunner:
    """Opens a session for each graph at its first run. Several threads may call it."""

    def __init__(self, opened: Bundle, *, native: NativeChoice) -> None:
        """Raises DeviceError if native kernels are `on` but not available."""
        self._bundle = opened
        self._native = choose_native(native) is not None
        self._sessions: dict[str, Session] = {}
        self._lock = Lock()

    @property
    def native_graphs(self) -> frozenset[str]:
        """The graphs in whose place native kernels compute."""
        manifest = self._bundle.manifest
        tasks = manifest.tasks if self._native else ()
        return frozenset(task for task in tasks if has_kernel(manifest.family, task))

    def __call__(self, request: GraphRequest) -> list[Array]:
        """Runs a graph. Raises ScoringError."""
        graph = self._bundle.manifest.tasks[request.graph]
        session = self._session(request.graph)
        try:
            return session.run(graph_inputs(request, graph))
        except Exception as error:
            reason = str(error).splitlines()[0]
            raise ScoringError(f"{request.graph}: the graph could not be run: {reason}") from None

    def _session(self, task: str) -> Session:
        with self._lock:
            if task not in self._sessions:
                self._sessions[task] = open_single_thread_session(
                    self._bundle, task, native=self._native
                )
            return self._sessions[task]
