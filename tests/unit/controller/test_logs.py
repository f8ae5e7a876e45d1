"""Logs: one JSON object per line."""

from __future__ import annotations

import json
import logging

from tierserve.controller.logs import JsonLines


def test_a_log_line_is_one_object_with_its_fields():
    record = logging.LogRecord("tierserve", logging.INFO, "x.py", 1, "scaled %s", ("edge",), None)
    record.fields = {"service": "chat/assistant"}
    line = json.loads(JsonLines().format(record))
    assert (line["level"], line["message"], line["service"]) == ("info", "scaled edge", "chat/assistant")
