"""Hostile inputs for every parser: seeded mutations of small valid files, and hand-made bombs.

`python -m tests.fuzz` runs all of them for FUZZ_SECONDS; `test_fuzz.py` runs a short form.
"""
