"""The engine as one who runs graphs for a job: after all that is interactive, and by itself.

By itself, as what shares a batch may differ in the last bit from what was computed alone, and a
job that was stopped must give the bytes that it would have given.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import wait
from time import sleep

from hsoftmax.models.arrays import Array
from hsoftmax.scoring import GraphRequest, graph_inputs
from hsoftmax.service.engine import Engine, GraphCall, GraphResult, Priority
from hsoftmax.service.errors import DeadlineExceeded, InferenceFailed, NotReady, Overloaded
from hsoftmax.service.http.request_options import RequestOptions
from hsoftmax.service.inference.scoring_calls import chunk_call
from hsoftmax.service.repository.loaded_bundle import LoadedBundle

from .errors import Interrupted, JobFailure

_OPTIONS = RequestOptions(timeout=120.0, priority=Priority.BATCH)  # then it is asked again
_CHECK_INTERVAL_S = 0.2  # seconds between looks whether the job goes on
_RETRY_INTERVAL_S = 0.2  # seconds before what found no room is asked again


class BlockingGraphRunner:
    """A `scoring.Run` on threads of its own, for the engine of an event loop elsewhere."""

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
        """Raises Interrupted as the job is, and Failure if the graph fails."""
        call = build_graph_call(request, self._loaded)
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
            except InferenceFailed as error:
                raise JobFailure("inference_failed", f"{request.graph}: {error}") from None

    def _outputs(self, call: GraphCall) -> list[Array]:
        """The engine's answer; given up, and the run with it, if the job is to stop."""
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


def build_graph_call(request: GraphRequest, loaded: LoadedBundle) -> GraphCall:
    """What is asked as a call of low priority."""
    inputs = graph_inputs(request, loaded.session(request.graph).graph)
    return chunk_call(request, loaded, inputs, _OPTIONS, apart=True)
