"""Builds a pretend CUDA runtime for the installed onnxruntime-gpu: python -m tests.pretend_cuda DIR

It needs gcc and nm, and NVIDIA's headers (packages nvidia-cuda-runtime and nvidia-cuda-crt).
"""

import re
import subprocess
import sys
from collections import defaultdict
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).parent
_SYMBOL = re.compile(r"\bU (\w+)(?:@(\S+))?$", re.MULTILINE)
# The start of the names of each library's functions; the first that fits decides.
_LIBRARIES = {
    "libcublasLt.so.13": "cublasLt",
    "libcublas.so.13": "cublas",
    "libcurand.so.10": "curand",
    "libcudart.so.13": ("cuda", "__cuda"),
    "libcuda.so.1": "cu",
}


def build(folder: Path) -> None:
    """Compile each library that the CUDA provider is linked with."""
    folder.mkdir(parents=True, exist_ok=True)
    needed = needed_symbols(provider())
    for library in _LIBRARIES:
        _compile(folder, library, needed[library])


def provider() -> Path:
    """Return ONNX Runtime's provider for CUDA. Raises SystemExit if the package has none."""
    spec = find_spec("onnxruntime")
    capi = Path(spec.origin).parent / "capi" if spec and spec.origin else Path()
    path = capi / "libonnxruntime_providers_cuda.so"
    if not path.exists():
        raise SystemExit(f"{path}: expected the package onnxruntime-gpu, got none")
    return path


def needed_symbols(library: Path) -> dict[str, dict[str, str]]:
    """Return the functions that a library needs of each CUDA library, with their versions."""
    listed = subprocess.run(
        ["nm", "-D", "--undefined-only", library], capture_output=True, text=True, check=True
    ).stdout
    needed: dict[str, dict[str, str]] = defaultdict(dict)
    for name, version in _SYMBOL.findall(listed):
        for cuda_library, starts in _LIBRARIES.items():
            if name.startswith(starts):
                needed[cuda_library][name] = version
                break
    return needed


def _compile(folder: Path, library: str, needed: dict[str, str]) -> None:
    source = "cudart.c" if library.startswith("libcudart") else "handles.c"
    text = (HERE / source).read_text()
    missing = [name for name in needed if not re.search(rf"\b{name}\b", text)]
    path = folder / f"{library}.c"
    path.write_text(text + "".join(f"int {name}() {{ return 0; }}\n" for name in missing))
    versions = folder / f"{library}.map"
    versions.write_text(f"{next(filter(None, needed.values()), library)} {{ global: *; }};\n")
    options = ["-shared", "-fPIC", "-O1", "-std=gnu17", *(f"-I{d}" for d in headers())]
    linking = [f"-Wl,-soname,{library}"]
    if any(needed.values()):
        linking.append(f"-Wl,--version-script={versions}")
    subprocess.run(["gcc", *options, *linking, path, "-o", folder / library], check=True)


def headers() -> list[Path]:
    """Return the folders of NVIDIA's headers, from its packages or the system."""
    spec = find_spec("nvidia")
    places = [Path(place) for place in (spec.submodule_search_locations or [])] if spec else []
    found = [folder for place in places for folder in place.glob("*/include")]
    return [*found, Path("/usr/local/cuda/include")]


if __name__ == "__main__":
    build(Path(sys.argv[1]))
