"""Streams: what comes in pieces, and what goes out in pieces, each waiting for the other."""
