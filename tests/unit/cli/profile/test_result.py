from __future__ import annotations

import pytest

from tierserve.api import Duration
from tierserve.cli.profile.result import duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0s"), (0.01234, "12.34ms"), (1.8e-3, "1.8ms"), (3.0e-6, "3us"), (5.5012e-7, "550.1ns"), (2.5, "2.5s"),
     (1e-10, "0.1ns"), (1e-15, "0s")],
)  # fmt: skip
def test_seconds_are_durations_of_the_resource(seconds, text):
    assert duration(seconds) == text
    assert Duration(text).value == pytest.approx(seconds, rel=1e-3, abs=1e-13)
