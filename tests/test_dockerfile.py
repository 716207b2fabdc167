"""Tests of the Dockerfile: static checks, and (slow) a run of its steps in a clean folder."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
import yaml

from hsoftmax.service.settings import Settings

ROOT = Path(__file__).parent.parent


def instructions() -> list[tuple[str, str]]:
    text = (ROOT / "Dockerfile").read_text()
    joined = re.sub(r"\\\n\s*", " ", re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE))
    return [tuple(line.split(" ", 1)) for line in joined.splitlines() if line.strip()]


def of(kind: str) -> list[str]:
    return [argument for name, argument in instructions() if name == kind]


def sources() -> list[str]:
    found = []
    for argument in of("COPY"):
        if not argument.startswith("--from"):
            found += argument.replace("${VARIANT}", "cpu").split()[:-1]
    return found


def test_it_has_two_stages_and_only_the_environment_crosses_over():
    assert len(of("FROM")) == 2
    crossing = [argument for argument in of("COPY") if argument.startswith("--from")]
    assert crossing == ["--from=build /opt/hsoftmax /opt/hsoftmax"]


def test_it_runs_as_somebody_without_rights():
    (user,) = of("USER")
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)


def test_it_starts_in_exec_form_so_that_signals_arrive():
    for kind in ("ENTRYPOINT", "CMD"):
        (argument,) = of(kind)
        assert argument.startswith("[")
    assert of("STOPSIGNAL") == ["SIGTERM"]


def test_it_has_a_health_check_without_a_shell():
    (check,) = of("HEALTHCHECK")
    assert 'CMD ["python"' in check
    assert "/healthz/live" in check


def test_all_that_it_copies_exists_and_passes_the_ignore_file():
    allowed = [
        line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line[0] == "!"
    ]
    for source in sources():
        assert (ROOT / source).exists(), source
        assert any(source == a or source.startswith(a + "/") for a in allowed), source


def test_it_installs_nothing_that_is_not_locked():
    for command in of("RUN"):
        if "/pip " in command:
            assert "--require-hashes" in command or "--no-index" in command


def test_each_variant_has_locked_requirements():
    for variant in ("cpu", "full", "cuda"):
        assert "--hash=sha256:" in (ROOT / "requirements" / f"{variant}.txt").read_text()


def test_compose_runs_it_without_rights_and_gives_it_time_to_drain():
    compose = yaml.safe_load((ROOT / "deploy" / "compose" / "compose.yaml").read_text())
    service = compose["services"]["hsoftmax"]
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    drain = Settings.model_fields["drain_timeout"].default
    drain += Settings.model_fields["drain_delay"].default
    assert float(service["stop_grace_period"].removesuffix("s")) > drain
    mounted = [v for one in compose["services"].values() for v in one["volumes"]]
    for source in (v.split(":")[0] for v in mounted if v.startswith("../")):
        assert (ROOT / "deploy" / "compose" / source).exists(), source


def test_prometheus_of_compose_reads_the_metrics_port_which_is_not_published():
    compose = yaml.safe_load((ROOT / "deploy" / "compose" / "compose.yaml").read_text())
    service = compose["services"]["hsoftmax"]
    port = service["environment"]["HSOFTMAX_METRICS_PORT"]
    config = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yaml").read_text())
    (job,) = config["scrape_configs"]
    assert job["static_configs"] == [{"targets": [f"hsoftmax:{port}"]}]
    assert [one.rpartition(":")[2] for one in service["ports"]] == of("EXPOSE") == ["8000"]


def test_it_reports_to_nobody():
    assert any("ORT_DISABLE_TELEMETRY=1" in argument.split() for argument in of("ENV"))


@pytest.mark.slow
def test_its_steps_run_in_a_clean_folder_and_the_result_serves(tmp_path):
    """The steps before USER run with /opt and /src moved under a temporary folder."""
    stage, moved = tmp_path / "src", {"/opt/": f"{tmp_path}/opt/", "/src": f"{tmp_path}/src"}
    stage.mkdir()
    for kind, argument in instructions()[1:]:
        if kind == "FROM" and "AS" not in argument:
            break
        for old, new in moved.items():
            argument = argument.replace(old, new)
        argument = argument.replace("${VARIANT}", "cpu")
        if kind == "COPY":
            *copied, to = argument.split()
            copy(copied, stage / to)
        elif kind == "RUN":
            subprocess.run(argument, shell=True, check=True, cwd=stage, env=clean_environment())
    serves(tmp_path / "opt" / "hsoftmax" / "bin", tmp_path)


def copy(copied: list[str], to: Path) -> None:
    for source in copied:
        path = ROOT / source
        if path.is_dir():
            shutil.copytree(path, to, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            to.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, to)


def clean_environment() -> dict[str, str]:
    python = Path(sys.executable).resolve().parent
    return {"PATH": f"{python}:/usr/bin:/bin", "HOME": os.environ.get("HOME", "/")}


def serves(binaries: Path, tmp_path: Path) -> None:
    exported = tmp_path / "models"
    subprocess.run(
        [sys.executable, "-m", "hsoftmax", "export", "--from", "theano", "--to", exported / "sotu",
         ROOT / "examples/state_of_the_union/weights.npz"],
        check=True,
        cwd=ROOT,
    )  # fmt: skip
    environment = clean_environment() | {
        "PATH": f"{binaries}:/usr/bin:/bin",
        "HSOFTMAX_REPOSITORY": str(exported),
        "HSOFTMAX_PORT": "18431",
    }
    process = subprocess.Popen(["hsoftmax", "serve"], env=environment, cwd=tmp_path)
    try:
        check = of("HEALTHCHECK")[0].split("CMD ", 1)[1]
        command = [part.rstrip(",") for part in shlex.split(check.strip("[]").replace(", ", " "))]
        assert command[0] == "python"
        wait_until_ready("http://127.0.0.1:18431/healthz/ready")
        process.terminate()
        assert process.wait(timeout=30) == 0
    finally:
        process.kill()


def wait_until_ready(url: str) -> None:
    for _ in range(200):
        try:
            with urllib.request.urlopen(url, timeout=2) as response:
                assert response.status == 200
                return
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f"{url} was never ready")
