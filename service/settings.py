"""The settings of the service: each field is a flag and an environment variable HSOFTMAX_<NAME>.

The help of the command line lists the fields, so this module imports no library but pydantic. The
environment is read in four lines here, so that help does not need the package pydantic-settings.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Field,
    SecretStr,
    model_validator,
)

from hsoftmax.runtime.choices import NativeChoice
from hsoftmax.runtime.devices import DeviceChoice
from hsoftmax.stores.errors import UrlError
from hsoftmax.stores.url import StoreUrl, is_url, parse_url

from .resources import available_cores

LogLevel = Literal["debug", "info", "warning", "error"]
Count = Annotated[int, Field(ge=1)]
GpuMemory = Annotated[ByteSize, Field(ge=64 * 2**20)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
SomeSeconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def _path_or_url(value: Any) -> Any:  # noqa: ANN401  whatever a flag or a variable has
    """Return a URL as a secret, as it may have a password, and other text as a path."""
    if isinstance(value, str):
        return SecretStr(value) if "://" in value else Path(value)
    return value


PathOrUrl = Annotated[Path | SecretStr | None, BeforeValidator(_path_or_url)]
Repository = Annotated[
    Path | StoreUrl, BeforeValidator(lambda text: _parse_repository(text))
]  # a local folder, or the address of a store
JobUrls = Annotated[tuple[StoreUrl, ...], BeforeValidator(lambda text: _parse_job_urls(text))]
Route = Annotated[str, Field(pattern=r"^(/[A-Za-z0-9._~:@-]+)+$")]
ModelName = Annotated[str, Field(pattern=r"^[^\s/.][^\s/]*$")]

JOB_SCHEMES = ("s3", "gs", "az", "https")  # of addresses of jobs; https:// is read only

# The names of a setting's variable on platforms that set it themselves: those of Vertex AI.
_PLATFORM_VARIABLES = {
    "port": "AIP_HTTP_PORT",
    "health_route": "AIP_HEALTH_ROUTE",
    "predict_route": "AIP_PREDICT_ROUTE",
}


class Settings(BaseModel):
    """All settings; frozen once read, and passed to `create_app` and `serve` as an argument."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    repository: Repository = Field(
        description="folder of bundles: <repository>/<name>/<version>/; a model folder "
        "(<version>/) or one bundle; or the address of a store: s3://, gs://, az://, https://"
    )
    store_cache: Path | None = Field(
        None,
        description="folder for what is downloaded from a store; by default in the folder of "
        "--state, or under XDG_CACHE_HOME or ~/.cache",
    )
    store_cache_size: Count = Field(
        64 * 2**30,
        description="most bytes of the store cache; the newest version of each bundle is in it in "
        "any case",
    )
    store_interval: SomeSeconds = Field(
        10.0, description="seconds between two looks into the store for new versions"
    )
    model_name: ModelName | None = Field(
        None,
        description="name of the model, where the repository is a model folder or one bundle; by "
        "default that of the folder",
    )
    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    grpc_port: int | None = Field(
        None,
        ge=0,
        le=65535,
        description="port for the Open Inference Protocol over gRPC, which is off without it; "
        "0 takes a free one",
    )
    metrics_port: int | None = Field(
        None,
        ge=0,
        le=65535,
        description="port of its own for /metrics, which needs no key and is then not on the other "
        "port; 0 takes a free one",
    )
    metrics_host: str | None = Field(
        None, description="address of the metrics port, if it is not that of the service"
    )
    health_route: Route | None = Field(
        None, description="another path of the readiness check; it needs no key"
    )
    predict_route: Route | None = Field(
        None, description="path of predictions as in KServe's protocol v1, of the only bundle"
    )
    device: DeviceChoice = Field(
        "auto", description="where graphs run; auto is cuda where there is one, else cpu"
    )
    gpu_memory: GpuMemory | None = Field(
        None,
        description="most bytes of GPU memory for the weights and runs of each worker, as a number "
        "or with a unit, such as 8GiB; all that is there without it",
    )
    native: NativeChoice = Field(
        "auto", description="native kernels: where they are installed, always, or never"
    )
    threads: Count = Field(
        default_factory=available_cores,
        description="compute threads of each worker; the default divides the cores that affinity "
        "and cgroup allow among the workers",
    )
    workers: Count = Field(1, description="processes to serve with, behind one port")
    check_hashes: bool = Field(
        True, description="compare every file's SHA-256 with the manifest before serving a bundle"
    )
    watch: bool = Field(
        True, description="look for new, changed and removed versions once a second"
    )
    max_body_bytes: Count = Field(16 * 2**20, description="largest request body in bytes")
    max_bodies_bytes: Count = Field(
        64 * 2**20, description="most bytes of request bodies that are received at the same time"
    )
    max_rows: Count = Field(4096, description="most rows of `inputs` in one request")
    max_tokens: Count = Field(
        65_536, description="most positions of an encoder's inputs in one request, of all rows"
    )
    max_targets: Count = Field(65_536, description="most (row, target) pairs in one request")
    max_values: Count = Field(
        4_000_000,
        description="most numbers in one answer, except full distributions",
    )
    slice_bytes: Count = Field(
        64 * 2**20,
        description="bytes of memory for one slice of a full distribution, which is sent in slices "
        "of one or more whole rows",
    )
    body_timeout: SomeSeconds = Field(
        30.0,
        description="seconds for a body to arrive, and for each piece of an answer to be taken",
    )
    max_streams: Count = Field(32, description="most streams of rows (`score`) at the same time")
    stream_timeout: SomeSeconds = Field(
        60.0,
        description="seconds after which a stream ends if its client sends and takes nothing",
    )
    stream_spool_bytes: Annotated[int, Field(ge=0)] = Field(
        256 * 2**20,
        description="most bytes on disk of a stream's answers that its client has not taken yet; "
        "then no more of its input is read",
    )
    compress_above: Count = Field(
        64 * 2**10,
        description="bytes from which an answer is compressed, if the client accepts it",
    )
    api_keys: SecretStr | None = Field(
        None,
        description="API keys, comma separated: every request except health checks must have one; "
        "in plain text, or as `sha256:` and the hash",
    )
    api_keys_file: Path | None = Field(
        None, description="file of API keys, one a line; it is read again when it changes"
    )
    max_requests_per_second: Rate | None = Field(
        None, description="most requests a second of the whole service; no limit without it"
    )
    max_rows_per_second: Rate | None = Field(
        None, description="most rows of queries and streams a second of the whole service"
    )
    admin_key: SecretStr | None = Field(
        None, description="key for reload, unload and rollouts, which are disabled without it"
    )
    tls_certfile: Path | None = Field(
        None, description="certificate chain in PEM; with it the service accepts TLS only"
    )
    tls_keyfile: Path | None = Field(
        None, description="private key in PEM, if it is not in the certificate's file"
    )
    timeout: SomeSeconds = Field(
        30.0, description="seconds until a request fails, unless it sets another timeout"
    )
    max_queue_requests: Count = Field(1024, description="most requests waiting in one lane")
    max_queue_rows: Count = Field(65_536, description="most rows waiting in one lane")
    max_queue_bytes: Count = Field(
        256 * 2**20, description="most bytes of waiting requests and their answers in one lane"
    )
    batching: bool = Field(True, description="compute waiting requests together in batches")
    state: PathOrUrl = Field(
        None,
        description="folder for uploaded files and jobs, or postgresql://user@host/database for "
        "the jobs of several replicas; by default a folder for this repository under "
        "XDG_STATE_HOME or ~/.local/state",
    )
    state_files: Path | None = Field(
        None,
        description="folder for uploaded files and outputs that all replicas see, if `state` is a "
        "database",
    )
    input_root: Path | None = Field(
        None, description="folder of files that jobs may read in place, by `input_path`"
    )
    job_urls: JobUrls = Field(
        default_factory=tuple,
        description="addresses in stores, comma separated, within which jobs may read `input_url` "
        "and write `output_url`, such as s3://bucket/jobs; none without it",
    )
    max_file_bytes: Count = Field(2**30, description="largest uploaded file in bytes")
    max_files_bytes: Count = Field(
        16 * 2**30, description="most bytes of uploaded files and outputs of jobs together"
    )
    max_jobs: Count = Field(100, description="most jobs that wait or run")
    job_retention: SomeSeconds = Field(
        30 * 86_400.0,
        description="seconds after which ended jobs and files are deleted",
    )
    job_lease: Annotated[float, Field(ge=1, allow_inf_nan=False)] = Field(
        15.0,
        description="seconds without a sign of life after which another replica continues a job, "
        "if `state` is a database",
    )
    job_shard_rows: Count | None = Field(
        None,
        description="rows of a job that are written together; the default depends on their size",
    )
    log_level: LogLevel = Field("info", description="least severe event that is logged")
    drain_delay: Seconds = Field(
        0.0, description="seconds after SIGTERM in which the service is unready but still answers"
    )
    drain_timeout: Seconds = Field(
        30.0, description="seconds after that for requests in flight to finish"
    )

    @model_validator(mode="before")
    @classmethod
    def _read_environment(cls, given: dict[str, Any]) -> dict[str, Any]:
        """Add the environment's value of each setting that is not given."""
        variables = {name: f"HSOFTMAX_{name.upper()}" for name in cls.model_fields}
        return _values(_PLATFORM_VARIABLES) | _values(variables) | given


def _parse_repository(text: object) -> object:
    """Turn the text of an address into a StoreUrl; leave anything else as it is."""
    return parse_url(text) if isinstance(text, str) and is_url(text) else text


def _parse_job_urls(text: object) -> object:
    """Parse addresses with commas between them. Raises UrlError."""
    if not isinstance(text, str):
        return text
    return tuple(_parse_job_url(one.strip()) for one in text.split(",") if one.strip())


def _parse_job_url(text: str) -> StoreUrl:
    url = parse_url(text)
    if url.scheme not in JOB_SCHEMES or "%" in text:
        wanted = ", ".join(f"{scheme}://" for scheme in JOB_SCHEMES)
        raise UrlError(f"expected addresses with {wanted} and without %, got {url}")
    return url


def _values(variables: Mapping[str, str]) -> dict[str, Any]:
    """Return the settings whose variables the environment has, by name."""
    return {name: os.environ[one] for name, one in variables.items() if one in os.environ}
