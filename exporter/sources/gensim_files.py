"""The files beside a gensim model, in which `save` puts large arrays."""

from pathlib import Path

_GZIP_SUFFIX = ".gz"  # gensim compresses by the name alone


def extra_file_path(model: Path, name: str) -> Path:
    """Return the path of an array of a model: `.npy`, or `.npz` if gensim compressed the model."""
    suffix = "npz" if model.name.endswith(_GZIP_SUFFIX) else "npy"
    return model.with_name(f"{model.name}.{name}.{suffix}")
