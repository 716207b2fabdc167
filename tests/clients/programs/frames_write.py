"""Writes the same rows as files and bodies with polars, pandas and DuckDB. Argument: a folder.

`files/` has inputs of `score` and of jobs, `questions/` and `streams/` have Arrow bodies.
"""

import sys
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa

FOLDER = Path(sys.argv[1])
FILES, QUESTIONS, STREAMS = (FOLDER / name for name in ("files", "questions", "streams"))
for folder in (FILES, QUESTIONS, STREAMS):
    folder.mkdir()

ROWS, HIDDEN = 50, 8
numbers = np.random.default_rng(3).normal(size=(ROWS, HIDDEN)).astype(np.float32)
np.save(FOLDER / "input.npy", numbers)
targets = [i % 11 for i in range(ROWS)]
labels = ["étoile" if target == 10 else f"word{target}" for target in targets]

# polars
frame = pl.DataFrame(
    {"id": range(ROWS), "input": numbers.tolist(), "target": targets},
    schema={"id": pl.UInt32, "input": pl.List(pl.Float32), "target": pl.Int16},
)
text = frame.with_columns(target=pl.Series(labels))
wide = frame.drop("input").with_columns(*(pl.Series(f"h{i}", numbers[:, i]) for i in range(HIDDEN)))
frames = {
    "list": frame,
    "array": frame.with_columns(pl.col("input").cast(pl.Array(pl.Float32, HIDDEN))),
    "double": frame.with_columns(pl.col("input").cast(pl.List(pl.Float64))),
    "text": text,
    "category": text.with_columns(pl.col("target").cast(pl.Categorical)),
    "enum": text.with_columns(pl.col("target").cast(pl.Enum(sorted(set(labels))))),
}
for name, one in {**frames, "wide": wide}.items():
    one.write_parquet(FILES / f"polars-{name}.parquet", row_group_size=20)
    one.write_ipc(FILES / f"polars-{name}.arrow")
    one.write_ipc(FILES / f"polars-{name}-zstd.arrow", compression="zstd")
    one.write_ipc_stream(FILES / f"polars-{name}-stream.arrow")
    one.write_ipc_stream(STREAMS / f"polars-{name}")
frame.write_ndjson(FILES / "polars.ndjson")
text.write_ndjson(FILES / "polars-text.jsonl")
wide.write_csv(FILES / "polars.csv")
for name, one in frames.items():
    asked = one.select(inputs="input", targets="target")
    asked.write_ipc_stream(QUESTIONS / f"polars-{name}")
    for compression in ("lz4", "zstd"):
        asked.write_ipc_stream(QUESTIONS / f"polars-{name}-{compression}", compression=compression)
        one.write_ipc_stream(STREAMS / f"polars-{name}-{compression}", compression=compression)
    asked.write_ipc_stream(
        QUESTIONS / f"polars-{name}-oldest", compat_level=pl.CompatLevel.oldest()
    )

# pandas
table = pd.DataFrame({"id": range(ROWS), "input": list(numbers), "target": targets})
variants = {
    "int": table,
    "nullable": table.assign(target=table["target"].astype("Int32")),
    "text": table.assign(target=labels),
    "category": table.assign(target=pd.Categorical(labels)),
    "arrow": table.assign(target=pd.array(labels, dtype="string[pyarrow]")),
    "shuffled": table.sample(frac=1, random_state=1).sort_values("id"),
}
for name, one in variants.items():
    one.to_parquet(FILES / f"pandas-{name}.parquet")
    one.reset_index(drop=True).to_feather(FILES / f"pandas-{name}.arrow")
    made = pa.Table.from_pandas(one)
    for folder, columns in ((STREAMS, {}), (QUESTIONS, {"input": "inputs", "target": "targets"})):
        renamed = made.rename_columns([columns.get(c, c) for c in made.column_names])
        kept = [c for c in renamed.column_names if not columns or c in columns.values()]
        with pa.ipc.new_stream(folder / f"pandas-{name}", renamed.select(kept).schema) as out:
            out.write_table(renamed.select(kept))
table.to_json(FILES / "pandas.ndjson", orient="records", lines=True, double_precision=15)
wide.to_pandas().to_csv(FILES / "pandas.csv", index=False)

# DuckDB
db = duckdb.connect()
db.register("rows", frame.to_arrow())
words = ", ".join(f"'{label}'" for label in sorted(set(labels)))
db.execute(f"CREATE TYPE word AS ENUM ({words})")
db.register("texts", text.to_arrow())
queries = {
    "list": "SELECT id, input, target FROM rows",
    "array": f"SELECT id, input::FLOAT[{HIDDEN}] AS input, target FROM rows",
    "bigint": "SELECT id::BIGINT AS id, input, target::BIGINT AS target FROM rows",
    "text": "SELECT id, input, target FROM texts",
    "enum": "SELECT id, input, target::word AS target FROM texts",
}
for name, query in queries.items():
    db.execute(f"COPY ({query} ORDER BY id) TO '{FILES}/duckdb-{name}.parquet'")
    db.execute(f"COPY ({query} ORDER BY id) TO '{FILES}/duckdb-{name}.ndjson' (FORMAT json)")
    got = db.sql(f"{query} ORDER BY id").to_arrow_table()
    with pa.ipc.new_stream(STREAMS / f"duckdb-{name}", got.schema) as out:
        out.write_table(got)
    asked = got.select(["input", "target"]).rename_columns(["inputs", "targets"])
    with pa.ipc.new_stream(QUESTIONS / f"duckdb-{name}", asked.schema) as out:
        out.write_table(asked)
db.register("wide", wide.to_arrow())
db.execute(f"COPY (SELECT * FROM wide ORDER BY id) TO '{FILES}/duckdb.csv'")
# A literal of DuckDB is a decimal, and so is each number of the list.
decimals = "[0.5, -0.25, 1.5, 2.0, 0.1, 0.2, 0.3, -1.0]"
got = db.sql(f"SELECT {decimals} AS inputs, 3 AS targets").to_arrow_table()
with pa.ipc.new_stream(FOLDER / "decimals", got.schema) as out:
    out.write_table(got)
