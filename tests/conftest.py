"""For all tests: a machine may be busy, so that no example of a property has a deadline."""

from hypothesis import settings

settings.register_profile("busy", deadline=None)
settings.load_profile("busy")
