"""Every property test draws from a fixed seed and has no deadline: machines are shared, results are not."""

from hypothesis import settings

settings.register_profile("variegate", deadline=None, derandomize=True)
settings.load_profile("variegate")
