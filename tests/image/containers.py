"""Runs a built image as a container: with Docker, or with runc on what buildah has built.

Its root is read-only, it runs as the image's user without capabilities, and writes only to /tmp
and the /state of the test.
"""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

BUILDAH = {"STORAGE_DRIVER": "vfs", "BUILDAH_ISOLATION": "chroot"}
HAS_DOCKER = shutil.which("docker") is not None and not subprocess.call(
    ["docker", "info"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
)


def output_of(*command: str) -> str:
    """Run a command and return what it prints."""
    environment = BUILDAH | dict(os.environ)
    return subprocess.run(
        command, env=environment, check=True, capture_output=True, text=True
    ).stdout.strip()


def read_config(image: str) -> dict[str, Any]:
    """Return the config of an image, as Docker names its fields."""
    if HAS_DOCKER:
        config = json.loads(output_of("docker", "inspect", "--type", "image", image))[0]["Config"]
    else:
        config = json.loads(output_of("buildah", "inspect", "--type", "image", image))
        config = config["Docker"]["config"]
    return dict(config)


class Container:
    """A started container, until `remove`."""

    def __init__(self, image: str, state: Path, models: Path, variables: Mapping[str, str]) -> None:
        self._log = (state.parent / f"{state.name}.log").open("w+")
        self._name = f"hsoftmax-test-{os.getpid()}-{state.name}"
        config = read_config(image)
        user = config["User"]
        os.chown(state, *map(int, user.split(":")))
        start = self._docker if HAS_DOCKER else self._runc
        command = start(image, config, {"/state": state, "/models": models}, variables)
        self.process = subprocess.Popen(command, stdout=self._log, stderr=subprocess.STDOUT)

    def _docker(
        self, image: str, config: object, mounts: Mapping[str, Path], variables: Mapping[str, str]
    ) -> list[str]:
        volumes = [f"--volume={path}:{at}" for at, path in mounts.items()]
        settings = [f"--env={name}={value}" for name, value in variables.items()]
        return [
            "docker", "run", "--rm", "--name", self._name, "--read-only", "--tmpfs=/tmp",
            "--cap-drop=ALL", "--network=host", *volumes, *settings, image,
        ]  # fmt: skip

    def _runc(
        self,
        image: str,
        config: Mapping[str, Any],
        mounts: Mapping[str, Path],
        variables: Mapping[str, str],
    ) -> list[str]:
        self._container = output_of("buildah", "from", "--pull-never", image)
        root = output_of("buildah", "mount", self._container)
        self._bundle = mounts["/state"].parent / f"{mounts['/state'].name}-oci"
        self._bundle.mkdir()
        spec = _oci_spec(root, config, mounts, variables)
        (self._bundle / "config.json").write_text(json.dumps(spec))
        return [
            "runc", "run", "--bundle", str(self._bundle), self._name,
        ]  # fmt: skip

    def run(self, *command: str) -> str:
        """Run a command in the container and return what it prints."""
        if HAS_DOCKER:
            return output_of("docker", "exec", self._name, *command)
        return output_of("runc", "exec", self._name, *command)

    def stop(self) -> None:
        """Send SIGTERM, as Docker and Kubernetes do."""
        if HAS_DOCKER:
            output_of("docker", "kill", "--signal=TERM", self._name)
        else:
            output_of("runc", "kill", self._name, "TERM")

    def read_log(self) -> list[str]:
        """Return all lines that the container has written."""
        return os.pread(self._log.fileno(), 100_000_000, 0).decode().splitlines()

    def until(self, event: str, seconds: float = 60) -> dict[str, Any]:
        """Wait for a line of this event in the log and return it."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self.process.poll() is None:
            for line in self.read_log():
                if f'"event": "{event}"' in line or f'"event":"{event}"' in line:
                    return dict(json.loads(line))
            time.sleep(0.05)
        raise AssertionError(f"no event {event}: {self.read_log()}")

    def remove(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            if not HAS_DOCKER:
                _ignore("runc", "kill", self._name, "KILL")
        self.process.wait(30)
        self._log.close()
        if HAS_DOCKER:
            _ignore("docker", "rm", "--force", self._name)
        else:
            _ignore("runc", "delete", "--force", self._name)
            _ignore("buildah", "rm", self._container)


def _ignore(*command: str) -> None:
    subprocess.run(command, env=BUILDAH | dict(os.environ), capture_output=True, check=False)


def _oci_spec(
    root: str,
    config: Mapping[str, Any],
    mounts: Mapping[str, Path],
    variables: Mapping[str, str],
) -> dict[str, Any]:
    """Return a runtime spec: read-only root, the image's user and command, no capabilities."""
    uid, gid = map(int, config["User"].split(":"))
    environment: Sequence[str] = [
        *config["Env"], *(f"{name}={value}" for name, value in variables.items())
    ]  # fmt: skip
    binds = [
        {"destination": at, "type": "bind", "source": str(path),
         "options": ["bind", "ro" if at == "/models" else "rw"]}
        for at, path in mounts.items()
    ]  # fmt: skip
    return {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": False,
            "user": {"uid": uid, "gid": gid},
            "args": [*config["Entrypoint"], *config["Cmd"]],
            "env": environment,
            "cwd": config.get("WorkingDir") or "/",
            "noNewPrivileges": True,
        },
        "root": {"path": root, "readonly": True},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["mode=1777"]},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "tmpfs"},
            *binds,
        ],
        "linux": {"namespaces": [{"type": "mount"}, {"type": "pid"}, {"type": "ipc"}]},
    }
