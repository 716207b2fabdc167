"""Which files and jobs an API key sees: its own.

The owner of a file or a job is the name of the key that made it. Without keys there is no owner,
and everyone sees everything. Rows without an owner are visible to every key: they were made by an
older version or while the service had no keys, when everyone saw them.
"""

# A condition on rows of `files` and `batches`. `owner` is the name of the key of the request.
VISIBLE = "(CAST(:owner AS TEXT) IS NULL OR owner IS NULL OR owner = CAST(:owner AS TEXT))"
