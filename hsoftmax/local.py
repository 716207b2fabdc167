"""Runs graphs of a bundle on disk: one thread a run, so that several runs go side by side.

A graph of many small products gains more from two batches at once than from two threads in one;
and what a row is answered does not depend on how many threads there are.
"""

from threading import Lock

import onnxruntime as ort

from bundle import Bundle, BundleError
from models.arrays import Array
from scoring import Asked, ScoringError, feeds


class LocalRun:
    """Sessions of the graphs that are asked for, opened when they first are."""

    def __init__(self, opened: Bundle) -> None:
        self._bundle = opened
        self._sessions: dict[str, ort.InferenceSession] = {}
        self._opening = Lock()

    def __call__(self, asked: Asked) -> list[Array]:
        graph = self._bundle.manifest.tasks[asked.graph]
        names = [port.name for port in graph.outputs]
        session = self._session(asked.graph)
        try:
            outputs: list[Array] = session.run(names, feeds(asked, graph))
        except Exception as error:
            reason = str(error).splitlines()[0]
            raise ScoringError(f"{asked.graph}: the graph could not be run: {reason}") from None
        return outputs

    def _session(self, task: str) -> ort.InferenceSession:
        with self._opening:
            if task not in self._sessions:
                self._sessions[task] = self._open(task)
            return self._sessions[task]

    def _open(self, task: str) -> ort.InferenceSession:
        path = self._bundle.file(self._bundle.manifest.tasks[task].file)
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # The arena may stay on: it keeps what the largest batch takes, and batches are bounded.
        options.add_session_config_entry("session.disable_prepacking", "1")  # weights stay mapped
        try:
            return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            reason = str(error).splitlines()[0]
            raise BundleError(f"{path}: expected a graph that loads, got: {reason}") from None
