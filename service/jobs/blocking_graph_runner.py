"""Runs the graphs of a job on the service's engine, from the threads of the job.

The calls have batch priority, so interactive requests go first. They never share a batch with other
calls: a batched row may differ in its last bit from a row computed alone, and a job that was
interrupted must produce the same bytes as one that was not.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import wait
from time import sleep

from hsoftmax.models.arrays import Array
from hsoftmax.scoring import GraphRequest, graph_inputs
from hsoftmax.service.engine import Engine, GraphCall, GraphResult, Priority
from hsoftmax.service.errors import (
    BundleChanged,
    DeadlineExceeded,
    InferenceFailed,
    NotReady,
    Overloaded,
)
from hsoftmax.service.http.request_options import RequestOptions
from hsoftmax.service.inference.named_inputs import cannot_run
from hsoftmax.service.inference.scoring_calls import build_graph_call
from hsoftmax.service.repository.loaded_bundle import LoadedBundle

from .errors import Interrupted, JobFailure

JOB_OPTIONS = RequestOptions(timeout=120.0, priority=Priority.BATCH)  # retried after the timeout
_CHECK_INTERVAL_S = 0.2  # between checks that the job has not been stopped
_RETRY_INTERVAL_S = 0.2  # before a call that found its queue full is submitted again


class BlockingGraphRunner:
    """A `scoring.GraphRunner` for threads outside the event loop on which the engine runs.

    `check` raises Interrupted when the job must stop.
    """

    def __init__(
        self,
        loaded: LoadedBundle,
        engine: Engine,
        loop: asyncio.AbstractEventLoop,
        check: Callable[[], None],
    ) -> None:
        self._loaded = loaded
        self._engine = engine
        self._loop = loop
        self._check = check

    def __call__(self, request: GraphRequest) -> list[Array]:
        """Return the graph's outputs. Raises Interrupted, and JobFailure if the graph fails."""
        return self.run(build_job_call(request, self._loaded), request.graph)

    def run(self, call: GraphCall, graph: str) -> list[Array]:
        """Return the outputs of a call; `graph` is its name for an error. Raises as above."""
        try:
            return self._run(call)
        except InferenceFailed as error:
            raise JobFailure("inference_failed", f"{graph}: {error}") from None

    def run_encoder(self, call: GraphCall) -> list[Array]:
        """Return the outputs of an encoder. Raises InvalidQuery for rows that it cannot run."""
        try:
            return self._run(call)
        except InferenceFailed:
            raise cannot_run(call) from None

    def _run(self, call: GraphCall) -> list[Array]:
        while True:
            self._check()
            try:
                return self._outputs(call)
            except Overloaded:
                sleep(_RETRY_INTERVAL_S)
            except DeadlineExceeded:
                continue
            except NotReady:
                raise Interrupted("stopping") from None
            except BundleChanged as error:
                raise JobFailure("bundle_gone", str(error), "endpoint") from None

    def _outputs(self, call: GraphCall) -> list[Array]:
        """Wait for the engine's result; cancel the call if the job must stop meanwhile."""
        future = asyncio.run_coroutine_threadsafe(self._submit(call), self._loop)
        try:
            while not wait([future], _CHECK_INTERVAL_S).done:
                self._check()
        except BaseException:
            future.cancel()
            raise
        return future.result()

    async def _submit(self, call: GraphCall) -> list[Array]:
        outputs: GraphResult = await self._engine.submit(call)
        return outputs.arrays


def build_job_call(request: GraphRequest, loaded: LoadedBundle) -> GraphCall:
    """Build the engine call of a graph request: batch priority, never batched with others."""
    inputs = graph_inputs(request, loaded.session(request.graph).graph)
    return build_graph_call(request, loaded, inputs, JOB_OPTIONS, isolated=True)
