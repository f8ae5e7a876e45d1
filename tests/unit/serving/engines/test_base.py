"""What an engine's message for people says of the fields of a request."""

from __future__ import annotations

import pytest

from tierserve_serving.engines.base import CHAT, COMPLETIONS, EMBEDDINGS, named_field


@pytest.mark.parametrize(
    ("message", "path", "fields", "field"),
    [
        ("Field 'n': must be at least 1", CHAT, ["n"], "n"),
        ("`tool_choice` requires `tools`", CHAT, ["tools", "tool_choice"], "tool_choice"),
        ("top_p must be in (0, 1], got 2.0.", CHAT, ["top_p"], "top_p"),
        ("n must be at least 1, got -1.", CHAT, ["n", "messages"], "n"),
        ("the sum of n and the stop of it", CHAT, ["n", "stop"], None),
        ("'prompt' is required", COMPLETIONS, [], "prompt"),
        ("'input' is required", EMBEDDINGS, [], "input"),
        ("Invalid tool_choice: 'sometimes'", CHAT, ["tool_choice"], "tool_choice"),
        ("The model 'x' has failed", CHAT, ["model"], None),
    ],
)
def test_a_field_is_known_from_a_message_that_names_it(message, path, fields, field):
    assert named_field(message, path, fields) == field
