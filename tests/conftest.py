"""How far Hypothesis looks.

`make test` takes the same examples each time, so that a verdict is of the code and not of the day. To search with new
ones each time: `HYPOTHESIS_PROFILE=search python -m pytest tests/property`. No test is judged by its time.
"""

from __future__ import annotations

import os

from hypothesis import settings

settings.register_profile("fixed", derandomize=True, deadline=None, print_blob=True)
settings.register_profile("search", deadline=None, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))
