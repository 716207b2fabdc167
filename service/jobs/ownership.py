"""The files and jobs that an API key sees: its own.

The owner of a file or a job is the name of the key that made it. Without keys there is no owner,
and every request sees all of them. Rows without an owner are visible to every key: an older version
made them, or the service had no keys then.
"""

# A condition on rows of `files` and `batches`. `owner` is the name of the key of the request.
VISIBLE = "(CAST(:owner AS TEXT) IS NULL OR owner IS NULL OR owner = CAST(:owner AS TEXT))"
