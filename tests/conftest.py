"""Every property test draws from a fixed seed and has no deadline: machines are shared, results are not.

`make soak` asks for the profile `soak`: many more cases, and other ones each time.
"""

import os

from hypothesis import HealthCheck, settings

PATIENT = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("variegate", derandomize=True, **PATIENT)
settings.register_profile("soak", max_examples=5000, print_blob=True, **PATIENT)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "variegate"))
