"""The synchronous client: sends the calls, and waits for each."""

import time
from collections.abc import Iterable, Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any, Self, TypeVar, overload

import httpx2

from hsoftmax.inputs import FlatTargets, Inputs, ListedTargets, Targets
from hsoftmax.models.arrays import Array, Int64
from hsoftmax.results import LabelPage, ModelInfo, Samples, TopK, known_targets
from hsoftmax.stream_rows import ROWS_AT_ONCE, Record, Row

from . import calls, job_calls
from .call import Call, Request, Response, expect_digest, get, post_json, read_json
from .calls import ModelAddress
from .errors import ClientError, refusal
from .http import NoAnswer, TimedOut, failure, send_sync, sync_http
from .job_calls import Job
from .retries import RetryPolicy
from .score import score_calls

T = TypeVar("T")

_READY_INTERVAL_S = 0.05


class Client:
    """Asks one service. Threads may share it.

    Args:
        base_url: URL of the service, such as http://127.0.0.1:8000
        api_key: sent with each request, if the service requires one; printable ASCII characters
        timeout_s: seconds to connect, and for each wait for bytes of the answer
        max_tries: tries of a request while the service says that it is busy (429 or 503); each
            waits as long as the service's `Retry-After` says
        transport: sends the requests in place of the network

    Raises:
        ClientError: the API key has a character that no HTTP header can carry.
    """

    def __init__(
        self,
        base_url: str = "http://127.0.0.1:8000",
        *,
        api_key: str | None = None,
        timeout_s: float = 60.0,
        max_tries: int = 5,
        transport: httpx2.BaseTransport | None = None,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self._retries = RetryPolicy(max_tries)
        self._http = sync_http(self.base_url, api_key, timeout_s, transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    def model(self, name: str, version: str | int | None = None) -> "RemoteModel":
        """Returns the model of this name, by default in the highest version. Nothing is sent."""
        return RemoteModel(self, ModelAddress(name, None if version is None else str(version)))

    @property
    def jobs(self) -> "Jobs":
        """Returns the jobs of the service, which score whole files."""
        return Jobs(self)

    def models(self) -> tuple[ModelInfo, ...]:
        """Returns every model that is served, in its highest version. Raises ClientError."""
        return self.send(calls.models())

    def wait_until_ready(self, timeout_s: float = 60.0) -> None:
        """Waits until the service is ready. Raises ClientError if that takes too long."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                self._send(get("/healthz/ready"), RetryPolicy(1))
                return
            except ClientError as error:
                if time.monotonic() > deadline:
                    raise ClientError(f"{self.base_url}: expected ready, got {error}") from None
                time.sleep(_READY_INTERVAL_S)

    def get(self, path: str) -> Any:  # noqa: ANN401  any JSON
        """Returns the JSON at a path, for routes without a method here. Raises ClientError."""
        return self.send(Call(get(path), read_json))

    def post(self, path: str, body: Mapping[str, Any], *, digest: str = "") -> Any:  # noqa: ANN401
        """Sends JSON and returns JSON. NumPy arrays in the body become lists.

        Raises:
            ClientError: the service refused, did not answer, or answered from a bundle with
                another digest than the given one.
        """
        return self.send(Call(post_json(path, body, digest=digest), read_json))

    def send(self, call: Call[T]) -> T:
        """Sends a call and returns its result. Raises ClientError."""
        return call.read(self._send(call.request, self._retries))

    def _send(self, request: Request, retries: RetryPolicy) -> Response:
        url = f"{self.base_url}{request.path}"
        for attempt in count(1):
            try:
                status, headers, content = send_sync(self._http, request)
            except NoAnswer as error:
                repeatable = request.repeatable and not isinstance(error, TimedOut)
                pause = retries.pause_after_no_answer(attempt, repeatable=repeatable)
                if pause is None:
                    raise failure(self.base_url, error) from None
            else:
                pause = retries.pause_after_answer(attempt, status, headers.get("retry-after"))
                if pause is None:
                    if status >= 300:
                        raise refusal(url, status, content)
                    expect_digest(self.base_url, request.digest, headers.get("x-hsoftmax-digest"))
                    return Response(headers, content)
            time.sleep(pause)
        raise AssertionError("unreachable")


class RemoteModel:
    """A model that a service serves. Its methods are those of `hsoftmax.load`.

    Every method raises ClientError if the service refuses the call, or does not answer.
    """

    def __init__(self, client: Client, address: ModelAddress) -> None:
        self._client = client
        self._address = address

    def describe(self) -> ModelInfo:
        """Returns the sizes, the family and the version of the model."""
        return self._client.send(calls.describe(self._address))

    @overload
    def probabilities(
        self, inputs: Inputs, targets: FlatTargets, *, log: bool = False
    ) -> Array: ...
    @overload
    def probabilities(
        self, inputs: Inputs, targets: ListedTargets, *, log: bool = False
    ) -> list[Array]: ...
    def probabilities(
        self, inputs: Inputs, targets: Targets, *, log: bool = False
    ) -> Array | list[Array]:
        """Returns the probability of each target, which is an index or a label.

        One target a row gives [rows]; an array gives an array of its shape; lists of any lengths
        give a list of arrays.
        """
        return self._client.send(calls.probabilities(self._address, inputs, targets, log))

    def distribution(self, inputs: Inputs, *, log: bool = False) -> Array:
        """Returns the probability of every target, [rows, num_targets]."""
        return self._client.send(calls.distribution(self._address, inputs, log))

    def top_k(
        self,
        inputs: Inputs,
        k: int | None = None,
        *,
        threshold: float | None = None,
        max_blocks: int = 0,
        log: bool = False,
    ) -> list[TopK]:
        """Returns the k likeliest targets of each row, by default 10 or all if there are fewer.

        `threshold` keeps only those with a probability above it. `max_blocks` bounds the search,
        which may then be inexact; 0 is no bound.
        """
        call = calls.top_k(self._address, inputs, k, threshold, max_blocks, log)
        return self._client.send(call)

    def sample(
        self, inputs: Inputs, num_samples: int = 1, *, seed: int | None = None, log: bool = False
    ) -> Samples:
        """Returns targets drawn with replacement; a seed makes the draw repeatable."""
        return self._client.send(calls.sample(self._address, inputs, num_samples, seed, log))

    def clusters(self, inputs: Inputs, *, log: bool = False) -> Array:
        """Returns the probability of each cluster, [rows, num_clusters]."""
        return self._client.send(calls.clusters(self._address, inputs, log))

    def labels(
        self, *, search: str = "", prefix: str = "", start: int = 0, limit: int = 100
    ) -> LabelPage:
        """Returns a page of labels that contain one text and begin with another."""
        return self._client.send(calls.labels(self._address, search, prefix, start, limit))

    def labels_of(self, targets: Iterable[int]) -> tuple[str, ...]:
        """Returns the label of each target."""
        pages = map(self._client.send, calls.labels_of(self._address, list(targets)))
        return tuple(label for page in pages for label in page.labels)

    def targets_of(self, labels: Iterable[str]) -> Int64:
        """Returns the target of each label."""
        pages = map(self._client.send, calls.targets_of(self._address, list(labels)))
        found = [pair for page in pages for pair in zip(page.targets, page.labels, strict=True)]
        return known_targets([target for target, _ in found], [label for _, label in found])

    def score(
        self,
        rows: Iterable[Row],
        task: str = "target_log_prob",
        *,
        rows_at_once: int = ROWS_AT_ONCE,
        **parameters: object,
    ) -> Iterator[Record]:
        """Yields the record of each row, in order; a wrong row has an error record in its place.

        A row has `input`, perhaps `id`, and `target` or `targets` if the task reads them. Rows of
        any number are read as their records are taken, `rows_at_once` in one request.
        `parameters` are those of the task, such as `k`.
        """
        for call in score_calls(self._address, rows, task, rows_at_once, parameters):
            yield from self._client.send(call)


class Jobs:
    """Scores whole files on the server. Every method raises ClientError."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def upload(self, path: str | Path) -> str:
        """Uploads a file of rows and returns its id. The extension of its name says its format."""
        return self._client.send(job_calls.upload(Path(path)))

    def create(
        self,
        file_id: str | None,
        model: str,
        task: str = "target_log_prob",
        *,
        version: str | int | None = None,
        **fields: object,
    ) -> Job:
        """Starts a job that scores the rows of an uploaded file.

        `fields` are the parameters of the task, such as `k`, and the other fields of
        `POST /v1/batches`, such as `output_format`, or `input_url` and `output_url`, objects in
        stores. Give None as the file with an `input_url`.
        """
        text = None if version is None else str(version)
        return self._client.send(job_calls.create(file_id, model, task, text, fields))

    def get(self, job_id: str) -> Job:
        """Returns the state of a job now."""
        return self._client.send(job_calls.find(job_id))

    def wait(self, job_id: str, timeout_s: float | None = None) -> Job:
        """Returns the state of a job once it has ended. Raises ClientError after `timeout_s`."""
        started = time.monotonic()
        for checks in count():
            job = self.get(job_id)
            if job.ended:
                return job
            if timeout_s is not None and time.monotonic() - started >= timeout_s:
                raise ClientError(f"{job_id}: expected its end in {timeout_s} s, got {job.status}")
            time.sleep(job_calls.interval_s(checks))
        raise AssertionError("unreachable")

    def cancel(self, job_id: str) -> Job:
        """Stops a job; the finished rows are available."""
        return self._client.send(job_calls.cancel(job_id))

    def download(self, file_id: str, path: str | Path) -> Path:
        """Writes the content of a file to `path`, where it is once it is whole."""
        return self._client.send(job_calls.download(file_id, Path(path)))
