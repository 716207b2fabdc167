"""Build hook: compiles the native kernels when a wheel or an editable installation is built."""

import importlib.util
import platform
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class NativeBuildHook(BuildHookInterface[Any]):
    """Adds the native library to the wheel. Without a compiler the wheel has only Python."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and name the wheel after the machine. `version` is standard or editable."""
        native = _load(Path(self.root) / "native" / "build.py")
        try:
            native.build()  # into `runtime`, which is packed with all that it has
        except native.BuildError as error:
            print(f"{error}\nONNX Runtime computes everything", file=sys.stderr)
            return
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-linux_{platform.machine()}"


def _load(path: Path) -> ModuleType:
    """Import a module by its path: the build's environment does not have this project's folder."""
    spec = importlib.util.spec_from_file_location("native_build", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
