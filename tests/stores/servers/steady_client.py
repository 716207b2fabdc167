"""A client that asks a service the same question all the time, and checks every answer."""

import http.client
import json
import threading
from collections import Counter
from collections.abc import Mapping

import numpy as np

from hsoftmax.models import Model
from hsoftmax.models.hierarchical_softmax import log_probs
from tests.service.conftest import HIDDEN, TOLERANCE
from tests.service.processes import Process

ROW = np.full((1, HIDDEN), 0.5, np.float32)
NUM_TARGETS = 5
QUERY = json.dumps({"inputs": ROW.tolist(), "targets": [list(range(NUM_TARGETS))], "log": True})


class SteadyClient:
    """Asks `words` without a version until it is stopped, over connections that stay open.

    Attributes:
        answers: right answers by version
        failures: every answer that is an error or wrong, and every broken connection
    """

    def __init__(self, service: Process, models: Mapping[str, Model]) -> None:
        self.answers: Counter[str] = Counter()
        self.failures: list[str] = []
        self._service = service
        self._right = {
            version: log_probs(model, ROW)[0, :NUM_TARGETS] for version, model in models.items()
        }
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        connection = self._service.connect()
        while not self._stopped.wait(0.002):
            try:
                self._ask(connection)
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))
                connection = self._service.connect()

    def _ask(self, connection: http.client.HTTPConnection) -> None:
        connection.request("POST", "/v1/models/words/probabilities", QUERY)
        response = connection.getresponse()
        body = response.read()
        if response.status != 200:
            self.failures.append(f"{response.status} {body[:200]!r}")
            return
        answer = json.loads(body)
        got = np.array(answer["log_probabilities"][0])
        if np.abs(got - self._right[answer["version"]]).max() > TOLERANCE:
            self.failures.append(f"wrong: {answer}")
            return
        self.answers[answer["version"]] += 1
