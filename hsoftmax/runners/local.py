"""Runs the graphs of a bundle on disk, with one thread for each run.

A graph of many small products gains more from two batches at once than from two threads in one
batch. A row's result then does not depend on the number of threads either.
"""

from threading import Lock

from onnxruntime import InferenceSession

from hsoftmax.bundle import Bundle
from hsoftmax.models.arrays import Array
from hsoftmax.runtime.sessions import open_single_thread_session
from hsoftmax.scoring import GraphRequest, ScoringError, graph_inputs


class LocalGraphRunner:
    """Opens a session for each graph at its first run. Several threads may call it."""

    def __init__(self, opened: Bundle) -> None:
        self._bundle = opened
        self._sessions: dict[str, InferenceSession] = {}
        self._lock = Lock()

    def __call__(self, request: GraphRequest) -> list[Array]:
        """Runs a graph. Raises ScoringError."""
        graph = self._bundle.manifest.tasks[request.graph]
        names = [port.name for port in graph.outputs]
        session = self._session(request.graph)
        try:
            outputs: list[Array] = session.run(names, graph_inputs(request, graph))
        except Exception as error:
            reason = str(error).splitlines()[0]
            raise ScoringError(f"{request.graph}: the graph could not be run: {reason}") from None
        return outputs

    def _session(self, task: str) -> InferenceSession:
        with self._lock:
            if task not in self._sessions:
                path = self._bundle.file(self._bundle.manifest.tasks[task].file)
                self._sessions[task] = open_single_thread_session(path)
            return self._sessions[task]
