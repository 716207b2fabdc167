from pathlib import Path

import numpy as np
import pytest


def theano_arrays(clusters: int = 5, block: int = 4, hidden: int = 6, seed: int = 0) -> dict:
    rng = np.random.default_rng(seed)
    return {
        "W1": rng.normal(size=(hidden, clusters)).astype(np.float32),
        "b1": rng.normal(size=clusters).astype(np.float32),
        "W2": rng.normal(size=(clusters, hidden, block)).astype(np.float32),
        "b2": rng.normal(size=(clusters, block)).astype(np.float32),
    }


@pytest.fixture
def arrays() -> dict:
    return theano_arrays()


@pytest.fixture
def weights(tmp_path: Path, arrays: dict) -> Path:
    path = tmp_path / "weights.npz"
    np.savez(path, **arrays, n_outputs=18)
    return path


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return tmp_path / "repository"
