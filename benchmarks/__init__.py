"""Measurements, one question a file; each prints ratios first and names the machine."""
