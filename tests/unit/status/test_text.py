"""The cause of a failure, out of what Ray Serve says about it."""

from __future__ import annotations

import pytest

from tierserve.status.text import cause

RETRYING = "A replica failed to start with exception. Retrying 2 more time(s). Error:\n"


@pytest.mark.parametrize(
    ("message", "found"),
    [
        ("no such model", ""),
        ("", ""),
        (
            RETRYING
            + '\x1b[36mray::ServeReplica\x1b[39m\n  File "x"\nRuntimeError: Traceback (most recent call last):\n'
            "  File\nOSError: [Errno 2] no such file: '/models/x'\n",
            "OSError: [Errno 2] no such file: '/models/x'",
        ),
        (
            RETRYING
            + "ray.exceptions.RayTaskError(EngineError): ray::X\n  File\nengines.base.EngineError: no model\nhint: y",
            "engines.base.EngineError: no model",
        ),
        (
            RETRYING + "  File\ntorch.cuda.OutOfMemoryError: CUDA out of memory.",
            "torch.cuda.OutOfMemoryError: CUDA out of memory.",
        ),
        (RETRYING + "The actor died unexpectedly.\n\tclass_name: X", "The actor died unexpectedly."),
        (RETRYING + "  File\nKeyError", "KeyError"),
    ],
)
def test_the_cause_is_the_exception_that_ended_the_replica(message, found):
    assert cause(message) == found


def test_a_cause_is_bounded():
    assert len(cause("ValueError: " + "x" * 100_000)) <= 400
