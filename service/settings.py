"""Every setting: a field here is a flag and an environment variable HSOFTMAX_<NAME>."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from .cores import available_cores

DeviceChoice = Literal["auto", "cpu", "cuda"]
LogLevel = Literal["debug", "info", "warning", "error"]
Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Settings(BaseSettings):
    """Frozen once read; passed to `create_app` and `serve`, never global."""

    model_config = SettingsConfigDict(env_prefix="HSOFTMAX_", frozen=True, extra="forbid")

    repository: Path = Field(description="folder of bundles: <repository>/<name>/<version>/")
    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    device: DeviceChoice = Field(
        "auto", description="where graphs run; auto is cuda where there is one, else cpu"
    )
    threads: Count = Field(
        default_factory=available_cores,
        description="threads for computing; the default is what affinity and cgroup allow",
    )
    check_hashes: bool = Field(
        True, description="compare every file's SHA-256 with the manifest before serving a bundle"
    )
    max_body_bytes: Count = Field(16 * 2**20, description="largest request body in bytes")
    max_rows: Count = Field(4096, description="most rows of `inputs` in one request")
    max_targets: Count = Field(65_536, description="most (row, target) pairs in one request")
    max_values: Count = Field(
        4_000_000, description="most numbers in one answer, such as rows x targets"
    )
    log_level: LogLevel = Field("info", description="least severe event that is logged")
    drain_delay: Seconds = Field(
        0.0, description="seconds to go on serving, unready, after SIGTERM"
    )
    drain_timeout: Seconds = Field(
        30.0, description="seconds that requests in flight then have to finish"
    )
