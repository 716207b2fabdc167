"""Benchmarks: each module measures one thing and prints ratios first, with the machine's name."""
