"""HTTP benchmarks: the service and others under load on the same machine; see `__main__`."""
