"""Names the extra that installs a missing package."""

# The names by which the extras' packages are imported.
PACKAGES = {
    "export": ("onnx", "safetensors", "spox"),
    "service": (
        "cffi",
        "fastapi",
        "fastapi_offline",
        "httpx2",
        "msgspec",
        "onnxruntime",
        "orjson",
        "prometheus_client",
        "python_multipart",
        "starlette",
        "structlog",
        "uvicorn",
        "zstandard",
    ),
    "client": ("httpx2", "orjson"),
    "arrow": ("pyarrow",),
    "ray": ("ray",),
    "hdf5": ("h5py",),
    "pytorch": ("torch",),
    "tokenizers": ("tokenizers",),
    "stores": ("obstore",),
}


def missing(module: str, *, subject: str = "this command", extra: str = "") -> str:
    """Return the error for a module that is not found, with the command that installs it.

    Without `extra`, the first extra that brings the package is named.
    """
    package = module.partition(".")[0]
    extras = [extra, *(name for name, packages in PACKAGES.items() if package in packages)]
    named = next(filter(None, extras), "export,service")
    return (
        f"{subject} needs the package {package}, which is not installed: pip install '.[{named}]'"
    )
