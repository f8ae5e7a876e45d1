"""`tierserve init`: flags, questions on a terminal, comments, and no file where one is or where it would be invalid."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tierserve.api import load
from tierserve.cli.errors import UserError
from tierserve.cli.init.text import scalar
from tierserve.cli.main import app


def run(*words: str) -> Result:
    return CliRunner().invoke(app, ["init", *words])


def test_without_flags_and_terminal_it_is_a_cloud_and_a_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run().exit_code == 0
    gaid = load(tmp_path / "service.yaml")
    assert (gaid.name, [tier.name for tier in gaid.spec.tiers]) == ("assistant", ["cloud", "device"])
    text = (tmp_path / "service.yaml").read_text()
    assert sum(line.lstrip().startswith("#") for line in text.splitlines()) >= 5
    assert max(map(len, text.splitlines())) <= 120


def test_a_file_that_is_there_stays_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("mine")
    error = run(str(file)).exception
    assert isinstance(error, UserError)
    assert (error.code, "mine.yaml" in error.message, file.read_text()) == (1, True, "mine")


@pytest.mark.parametrize(
    ("flag", "part"),
    [
        ("moon", "kind"),
        ("cloud,engine=magic", "engine"),
        ("cloud,preset=abacus", "preset"),
        ("cloud,colour=red", "colour"),
        ("cloud,min=3,max=2", "min"),
        ("cloud,max=many", "max"),
        ("cloud,engine=vllm", "source"),
        ("cloud,source=hf://org/m", "source"),
    ],
)
def test_a_tier_that_is_wrong_is_a_usage_error_that_names_the_key(flag: str, part: str, tmp_path: Path) -> None:
    file = tmp_path / "new.yaml"
    error = run(str(file), "--tier", flag, "--yes").exception
    assert isinstance(error, UserError)
    assert (error.code, part in error.message, bool(error.hint), file.exists()) == (2, True, True, False)


@pytest.mark.parametrize(
    ("words", "field"),
    [
        (("--name", "Not A Name"), "metadata.name"),
        (("--target", "soon"), "spec.objective.responseTime.target"),
        (("--tier", "cloud", "--target", "1ms"), "spec.objective.responseTime.target"),
        (("--tier", "cloud,name=a", "--tier", "cloud,name=a"), "spec.tiers"),
    ],
)
def test_what_would_not_be_valid_is_not_written_and_its_field_is_named(
    words: tuple[str, ...], field: str, tmp_path: Path
) -> None:
    file = tmp_path / "new.yaml"
    error = run(str(file), *words, "--yes").exception
    assert isinstance(error, UserError)
    assert (error.code, field in error.message, file.exists()) == (2, True, False)


def test_several_tiers_of_a_kind_have_names_and_models_of_their_own(tmp_path: Path) -> None:
    file = tmp_path / "new.yaml"
    assert run(str(file), "--tier", "edge", "--tier", "edge,max=2", "--yes").exit_code == 0
    gaid = load(file)
    assert [(tier.name, *tier.models) for tier in gaid.spec.tiers] == [("edge", "mid"), ("edge-2", "mid-2")]
    assert [model.size_class for model in gaid.spec.models] == ["mid", "mid"]


@pytest.mark.parametrize("value", ["no", "null", "1e3", "1.5", "a: b", "#x", "~", "", "a,b", 'say "x"'])
def test_a_word_that_yaml_would_read_as_something_else_is_quoted(value: str) -> None:
    import yaml

    assert yaml.safe_load(f"[{scalar(value)}]") == [value]


def test_on_a_terminal_it_asks_and_an_empty_line_takes_the_default(
    tmp_path: Path, terminal: Callable[..., tuple[int, str]]
) -> None:
    file = tmp_path / "asked.yaml"
    answers = [
        ("Name", "chat\n"), ("target", "\n"), ("tokens", "16\n"), ("Tiers", "edge\n"), ("edge: engine", "\n"),
        ("edge: accelerator", "abacus\n"), ("edge: accelerator", "L4\n"), ("edge: maximum", "0\n"),
        ("edge: maximum", "3\n"),
    ]  # fmt: skip
    code, screen = terminal(["init", str(file)], answers)
    assert code == 0, screen
    gaid = load(file)
    (tier,) = gaid.spec.tiers
    assert (gaid.name, str(gaid.spec.objective.response_time.target)) == ("chat", "1500ms")
    assert (tier.kind, tier.accelerator.preset, tier.max_replicas) == ("edge", "L4", 3)
    assert [model.output.tokens for model in gaid.spec.models] == [16]
