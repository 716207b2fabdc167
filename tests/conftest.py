"""For all tests: a machine may be busy, so that no example of a property has a deadline."""

from hypothesis import settings

import hsoftmax  # noqa: F401  before any test imports onnxruntime, which would report

settings.register_profile("busy", deadline=None)
settings.load_profile("busy")
