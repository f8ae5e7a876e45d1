"""What the replica makes of vLLM's errors and of the size of its cache, without vLLM."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import orjson
import pytest

from tierserve_serving.config import PoolConfig
from tierserve_serving.engines import RequestError
from tierserve_serving.engines.base import CHAT, COMPLETIONS, RESPONSES
from tierserve_serving.engines.vllm import VllmEngine

_IN_PYTHON = "1 error:\n  {'type': 'a', 'loc': ('body', 'n'), 'msg': 'Input should be an integer', 'input': 'x'}"
_OF_A_UNION = "{'type': 'missing', 'loc': ('body', 'messages', 0), 'msg': \"Needs 'role'\", 'input': {}}"


def config(**changes) -> PoolConfig:
    base = {"service": "assistant", "tier": "cloud", "model": "m", "engine": "vllm", "source": "hf://org/m"}
    return PoolConfig.model_validate(base | {"slots": 4, "context_tokens": 1024} | changes)


async def refusal(path: str, document: dict, message: str, param: str | None = None) -> RequestError:
    """The error of a request that vLLM answers with 400, a message and the location of a field."""

    async def vllm(scope, receive, send) -> None:
        body = orjson.dumps({"error": {"message": message, "type": "BadRequestError", "param": param, "code": 400}})
        await send({"type": "http.response.start", "status": 400, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": body})

    engine = VllmEngine(config())
    engine._app = vllm
    with pytest.raises(RequestError) as caught:
        [part async for part in engine.respond(path, document)]
    assert caught.value.status == 400
    return caught.value


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("path", "document", "message", "location", "param", "shown"),
    [
        (CHAT, {"n": "x"}, _IN_PYTHON, "body.n", "n", "Input should be an integer"),
        (
            CHAT,
            {"messages": [{}]},
            _OF_A_UNION,
            "body.messages.0.User.role",
            "messages.0.role",
            "Needs 'role'",
        ),
        (CHAT, {"n": -1}, "n must be at least 1, got -1.", None, "n", None),
        (CHAT, {"logprobs": True, "top_logprobs": 99}, "Requested too many", "logprobs", "top_logprobs", None),
        (CHAT, {"messages": []}, "m is not a multimodal model", None, "messages", None),
        (COMPLETIONS, {}, "This model's maximum context length is 9 tokens", "input_tokens", "prompt", None),
        (RESPONSES, {"input": "a"}, "Something else.", None, None, None),
    ],
)
async def test_an_error_names_vllm_once_and_the_field(path, document, message, location, param, shown):
    error = await refusal(path, document, message, location)
    assert (error.param, str(error)) == (param, f"vLLM: {shown or message}")


@pytest.mark.parametrize(("fit", "warned"), [(3.9, True), (4.0, False), (22.7, False), (None, False)])
def test_slots_of_the_full_context_that_exceed_the_cache_are_warned_of(caplog, fit, warned):
    engine = VllmEngine(config())
    with caplog.at_level(logging.WARNING, "ray.serve"):
        engine._check_cache(SimpleNamespace(kv_cache_max_concurrency=fit, kv_cache_size_tokens=3994))
    assert bool(caplog.messages) == warned
    assert engine.gauges().get("kv_cache_full_contexts") == fit
    for message in caplog.messages:
        assert message.startswith("maxConcurrency: 4 requests of contextTokens (1024)")
        assert "3994 tokens, which holds 3.9;" in message
        assert "; hint: lower maxConcurrency or contextTokens" in message
