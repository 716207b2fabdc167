"""Compiles the native kernels into one library, `runtime/native/libhsoftmax.so`, beside its header.

    python native/build.py [LIBRARY [FLAG ...]]

The kernels are compiled once for each instruction set of the machine's architecture; the library
chooses when it is loaded. The build backend runs this at installation; without a C compiler the
package is installed without the library, and ONNX Runtime computes everything.
"""

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

SOURCES = Path(__file__).parent
LIBRARY = SOURCES.parent / "runtime" / "native" / "libhsoftmax.so"

_FLAGS = (
    "-std=c11", "-O3", "-Wall", "-Wextra", "-Werror", "-fPIC", "-ffp-contract=off",
    "-fno-math-errno", "-fstack-protector-strong", "-pthread",
)  # fmt: skip
_X86 = {
    "avx2": ("-mavx2", "-mfma", "-mf16c"),
    "avx512": (
        "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma", "-mf16c",
        "-mprefer-vector-width=512",
    ),
}  # fmt: skip
_INSTRUCTION_SETS: Mapping[str, Mapping[str, Sequence[str]]] = {
    "x86_64": _X86,
    "aarch64": {"neon": ()},
}


class BuildError(Exception):
    """The library cannot be compiled on this machine."""


def build(
    library: Path = LIBRARY,
    *,
    compiler: str | None = None,
    machine: str = platform.machine(),
    flags: Sequence[str] = (),
) -> Path:
    """Compile the library and put it into place at once, so that no process loads half of it.

    Raises:
        BuildError: another architecture, no compiler, or errors of the compiler.
    """
    if machine not in _INSTRUCTION_SETS or sys.platform != "linux":
        known = " or ".join(_INSTRUCTION_SETS)
        raise BuildError(f"native kernels: expected Linux on {known}, got {sys.platform} {machine}")
    compiler = compiler or _compiler()
    with tempfile.TemporaryDirectory(dir=library.parent) as folder:
        objects = [
            _compile(compiler, "kernels.c", Path(folder) / f"{name}.o", (*options, *flags))
            for name, options in _INSTRUCTION_SETS[machine].items()
        ]
        objects += [
            _compile(compiler, source.name, Path(folder) / f"{source.stem}.o", flags)
            for source in sorted(SOURCES.glob("*.c"))
            if source.name != "kernels.c"
        ]
        linked = Path(folder) / library.name
        _run([compiler, "-shared", "-pthread", *flags, "-o", linked, *objects, "-lm"])
        shutil.copy(SOURCES / "hsoftmax.h", library.parent)
        os.replace(linked, library)
    return library


def _compiler() -> str:
    found = os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")
    if not found:
        raise BuildError("native kernels: expected a C compiler (gcc or clang), got none")
    return found


def _compile(compiler: str, source: str, to: Path, flags: Sequence[str]) -> Path:
    _run([compiler, *_FLAGS, *flags, "-c", SOURCES / source, "-o", to])
    return to


def _run(command: Sequence[str | Path]) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except OSError as error:
        raise BuildError(f"native kernels: {command[0]}: {error.strerror}") from None
    except subprocess.CalledProcessError as error:
        raise BuildError(f"native kernels: {error.stderr}") from None


if __name__ == "__main__":
    try:
        to = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else LIBRARY
        print(build(to, flags=sys.argv[2:]))
    except BuildError as error:
        sys.exit(str(error))
