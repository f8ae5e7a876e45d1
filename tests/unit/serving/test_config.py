from __future__ import annotations

import pytest

from tierserve_serving import engines
from tierserve_serving.app import build, validated

POOL = {"service": "assistant", "tier": "cloud", "model": "m"}


def test_an_engine_that_is_not_installed_is_refused_before_a_replica_starts(monkeypatch):
    monkeypatch.setattr(engines, "find_spec", lambda _: None)
    with pytest.raises(ValueError, match="engine: vllm is not installed"):
        build(POOL | {"engine": "vllm", "source": "file:///models/m"})


def test_a_pool_is_named_after_tier_and_site():
    assert validated(POOL).pool == "cloud-default"
    assert validated(POOL | {"site": "ams"}).pool == "cloud-ams"


def test_model_and_service_are_both_names_of_the_model():
    assert validated(POOL).model_names == ("m", "assistant")
    assert validated(POOL | {"model": "assistant"}).model_names == ("assistant",)


@pytest.mark.parametrize(
    ("changes", "field", "hint"),
    [
        ({"slots": 0}, "slots", "greater than or equal to 1"),
        ({"engine": "gpt"}, "engine", "'emulated', 'llamacpp' or 'vllm'"),
        ({"engine": "vllm"}, "source", "required by the engine vllm"),
        ({"engine": "llamacpp"}, "source", "pypi://"),
        ({"engine": "llamacpp", "source": "hf://a"}, "source", "hf://ORG/MODEL"),
        ({"engine": "llamacpp", "source": "ftp://a/b"}, "source", "file:///PATH"),
        ({"engine": "llamacpp", "source": "/model.gguf"}, "source", "must be a model source"),
        ({"slotz": 1}, "slotz", "not permitted"),
        ({"uplink_s": -1}, "uplink_s", "greater than or equal to 0"),
        ({"uplink_s": float("nan")}, "uplink_s", "finite"),
        ({"profile": {"alpha": -1}}, "profile.alpha", "greater than or equal to 0"),
        ({"profile": {"alpha": 0}}, "profile", "alpha + beta + gamma"),
    ],
)
def test_an_invalid_argument_is_named_with_a_hint(changes, field, hint):
    with pytest.raises(ValueError, match="invalid arguments") as caught:
        validated(POOL | changes)
    assert field in str(caught.value)
    assert hint in str(caught.value)
