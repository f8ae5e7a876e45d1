"""Bodies of requests: JSON as other servers accept it."""

from __future__ import annotations

import json
import re
from typing import Any

import orjson

from tierserve_serving.openai.errors import bad_json

_SURROGATE = re.compile("[\ud800-\udfff]")


def parse_body(body: bytes) -> dict[str, Any]:
    """Return the JSON object in `body`. Raises `ApiError` (400)."""
    if not body:
        raise bad_json("the body is empty")
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        document = _lenient(body, error)
    if not isinstance(document, dict):
        raise bad_json("the body must be an object")
    return document


def _lenient(body: bytes, strict: orjson.JSONDecodeError) -> Any:
    """Parse with Python's json, as vLLM does, which accepts more than orjson: lone surrogates, a byte order mark.

    Engines and responses use UTF-8, which has no lone surrogates: each becomes the replacement character. The second
    pass rejects NaN and Infinity.
    """
    try:
        text = json.dumps(json.loads(body), ensure_ascii=False)
        return orjson.loads(_SURROGATE.sub("\ufffd", text))
    except (ValueError, RecursionError):
        raise bad_json(str(strict)) from None
