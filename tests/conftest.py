"""Every property test draws from a fixed seed and has no deadline: machines are shared, results are not.

`make soak` asks for the profile `soak`: many more cases, and other ones each time.
"""

import os

from hypothesis import settings

settings.register_profile("variegate", deadline=None, derandomize=True)
settings.register_profile("soak", deadline=None, max_examples=5000, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "variegate"))
