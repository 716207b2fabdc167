"""Runs the app in one process or several, over HTTP and gRPC, until a signal stops it."""
