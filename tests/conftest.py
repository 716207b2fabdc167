"""Settings of all tests: property tests have no deadline, as the machine may be busy."""

from hypothesis import settings

import hsoftmax  # noqa: F401  before any test imports onnxruntime, which would report

settings.register_profile("busy", deadline=None)
settings.load_profile("busy")
