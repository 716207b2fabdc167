"""The service under load, beside others on the same graph and machine; see `__main__`."""
