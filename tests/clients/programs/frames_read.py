"""Reads outputs of `score` and answers of the service with polars, pandas and DuckDB.

Argument: a folder with `expected.npy` and `outputs/`. Files whose name begins with `answer` are
Arrow streams.
"""

import sys
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa

FOLDER = Path(sys.argv[1])
EXPECTED = np.load(FOLDER / "expected.npy")


def polars(path: Path) -> pl.DataFrame:
    match path.suffix:
        case ".parquet":
            return pl.read_parquet(path)
        case ".arrow":
            return pl.read_ipc(path)
        case ".ndjson":
            return pl.read_ndjson(path)
        case ".csv":
            return pl.read_csv(path)
    return pl.read_ipc_stream(path)


def pandas(path: Path) -> pd.DataFrame:
    match path.suffix:
        case ".parquet":
            return pd.read_parquet(path)
        case ".arrow":
            return pd.read_feather(path)
        case ".ndjson":
            return pd.read_json(path, lines=True, precise_float=True)
        case ".csv":
            return pd.read_csv(path)
    return pa.ipc.open_stream(path.read_bytes()).read_pandas()


def duck(path: Path) -> pd.DataFrame:
    db = duckdb.connect()
    if path.suffix in (".parquet", ".ndjson", ".csv"):
        return db.sql(f"SELECT * FROM '{path}'").df()
    table = pl.read_ipc_stream(path).to_arrow() if path.suffix == "" else pa.ipc.open_file(
        path.read_bytes()).read_all()  # fmt: skip
    db.register("answer", table)
    return db.sql("SELECT * FROM answer").df()


read = 0
for path in sorted((FOLDER / "outputs").iterdir()):
    for reader in (polars, pandas, duck):
        frame = reader(path)
        assert len(frame) == len(EXPECTED), (path, reader)
        if "log_prob" in frame.columns:
            got = np.array(frame["log_prob"], dtype=np.float64)
            np.testing.assert_allclose(got, EXPECTED, rtol=0, atol=1e-5, err_msg=str(path))
            assert [int(id) for id in frame["id"]] == list(range(len(EXPECTED))), (path, reader)
        elif "log_probabilities" in frame.columns:
            got = np.array(frame["log_probabilities"].to_list(), dtype=np.float64)
            assert got.shape[0] == len(EXPECTED)
        else:
            assert len(frame["probabilities"][0]) == 3, (path, reader)
        read += 1
print(f"read {read}")
