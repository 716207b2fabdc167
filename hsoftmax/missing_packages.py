"""Names the extra that installs a missing package."""

# The names by which the extras' packages are imported.
PACKAGES = {
    "export": ("onnx", "safetensors", "spox"),
    "service": (
        "cffi",
        "fastapi",
        "fastapi_offline",
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
    "arrow": ("pyarrow",),
    "ray": ("ray",),
    "hdf5": ("h5py",),
    "pytorch": ("torch",),
    "tokenizers": ("tokenizers",),
}


def missing(module: str) -> str:
    """Return the error for a module that is not found, with the command that installs it."""
    package = module.partition(".")[0]
    extras = [extra for extra, packages in PACKAGES.items() if package in packages]
    return (
        f"this command needs the package {package}, which is not installed: "
        f"pip install '.[{extras[0] if extras else 'export,service'}]'"
    )
