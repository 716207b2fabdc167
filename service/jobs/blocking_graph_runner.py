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
from hsoftmax.service.inference.scoring_calls import build_graph_call
from hsoftmax.service.repository.loaded_bundle import LoadedBundle

from .errors import Failure, Interrupted

_TERMS = RequestOptions(timeout=120.0, priority=Priority.BATCH)  # then it is asked again
_LOOK = 0.2  # seconds between looks whether the job goes on
_PAUSE = 0.2  # seconds before what found no room is asked again


class EngineRun:
    """A `scoring.GraphRunner` on threads of its own, for the engine of an event loop elsewhere."""

    def __init__(
        self,
        served: LoadedBundle,
        engine: Engine,
        loop: asyncio.AbstractEventLoop,
        look_up: Callable[[], None],
    ) -> None:
        self._served = served
        self._engine = engine
        self._loop = loop
        self._look_up = look_up

    def __call__(self, asked: GraphRequest) -> list[Array]:
        """Raises Interrupted as the job is, and Failure if the graph fails."""
        call = call_of(asked, self._served)
        while True:
            self._look_up()
            try:
                return self._outputs(call)
            except Overloaded:
                sleep(_PAUSE)
            except DeadlineExceeded:
                continue
            except NotReady:
                raise Interrupted("stopping") from None
            except InferenceFailed as error:
                raise Failure("inference_failed", f"{asked.graph}: {error}") from None

    def _outputs(self, call: GraphCall) -> list[Array]:
        """The engine's answer; given up, and the run with it, if the job is to stop."""
        answer = asyncio.run_coroutine_threadsafe(self._submit(call), self._loop)
        try:
            while not wait([answer], _LOOK).done:
                self._look_up()
        except BaseException:
            answer.cancel()
            raise
        return answer.result()

    async def _submit(self, call: GraphCall) -> list[Array]:
        outputs: GraphResult = await self._engine.submit(call)
        return outputs.arrays


def call_of(asked: GraphRequest, served: LoadedBundle) -> GraphCall:
    """What is asked as a call of low priority."""
    inputs = graph_inputs(asked, served.session(asked.graph).graph)
    return build_graph_call(asked, served, inputs, _TERMS, isolated=True)
