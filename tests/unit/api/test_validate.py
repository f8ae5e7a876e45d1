"""`tierserve validate` as a user sees it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from tierserve.cli.validate import validate

ROOT = Path(__file__).resolve().parents[3]
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))
app = typer.Typer()
app.command()(validate)


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    file = tmp_path / "bad.yaml"
    text = (ROOT / "examples/smallest.yaml").read_text()
    text = text.replace("weights: 16Gi", "weights: 160Gi")
    file.write_text(text.replace("{preset: cpu}", "{preset: cpu}, replicas: {min: 2, max: 1}"))
    return file


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_valid_and_warned_of_only_where_one_runtime_or_command_reads_a_field(example: Path) -> None:
    result = run(example)
    assert result.exit_code == 0
    warnings = [line for line in result.output.splitlines() if line.startswith("warning: ")]
    reasons = ("only `tierserve plan --best` reads it", "it has an effect on Kubernetes only")
    assert all(any(reason in line for reason in reasons) for line in warnings)
    assert bool(warnings) == (example.stem in ("stores", "llama-8b"))


def test_an_error_has_field_value_and_hint(bad: Path) -> None:
    result = run(bad)
    assert result.exit_code == 1
    assert (
        result.output
        == f"""\
{bad}:14: spec.tiers[1].replicas.max: must be at least min, 2 (got 1)
    hint: set max to at least min, min to 0 for scale to zero, or max to 0 to disable the tier
{bad}:10: spec.models[0].memory.weights: must fit accelerator A100-80GB of tier cloud (1 x 80Gi, 4Gi of each in \
reserve) (got 160Gi)
    hint: use more accelerators perReplica (tensor parallel), a quantised variant, or a larger accelerator
2 errors
"""
    )


@pytest.mark.timeout(60)
def test_a_file_with_as_many_sites_and_classes_as_the_crd_allows_is_validated(tmp_path: Path) -> None:
    text = (ROOT / "examples/smallest.yaml").read_text()
    sites = ", ".join(f"{{name: s{n}}}" for n in range(64))
    classes = ", ".join(f"{{name: c{n}, share: 0.0625}}" for n in range(16))
    file = tmp_path / "many.yaml"
    file.write_text(text.replace("{preset: cpu}", f"{{preset: cpu}}, sites: [{sites}]") + f"  traffic: [{classes}]\n")
    assert run(file).exit_code == 0
    file.write_text(file.read_text().replace("name: c0,", "name: c0, origin: paris,"))
    result = run(file)
    assert result.exit_code == 1
    assert "spec.traffic[0].origin" in result.output


def test_an_adapter_name_that_another_model_or_its_adapter_has_is_named(tmp_path: Path) -> None:
    file = tmp_path / "two.yaml"
    text = (ROOT / "examples/smollm2.yaml").read_text()
    sql, mine = "{name: sql, source: file:///sql}", "{name: mine, source: file:///mine}"
    first = f"{{name: a, engine: llamacpp, source: file:///a, adapters: [{sql}, {mine}]}}"
    second = f"{{name: mine, engine: llamacpp, source: file:///b, adapters: [{sql}]}}"
    file.write_text(text.replace("  models:\n", f"  models:\n    - {first}\n    - {second}\n"))
    errors = [line for line in run(file).output.splitlines() if "spec.models" in line]
    assert ["models[0].adapters" in errors[0], "models[1].adapters" in errors[1]] == [True, True]
    assert [line.rpartition("(")[2] for line in errors] == ["sql, mine)", "sql)"]


def test_json_has_the_same(bad: Path) -> None:
    result = run(bad, ROOT / "examples/smallest.yaml", "-o", "json")
    assert result.exit_code == 1
    first, second = json.loads(result.stdout)
    assert (first["valid"], second["valid"]) == (False, True)
    assert [error["path"] for error in first["errors"]] == [
        "spec.tiers[1].replicas.max",
        "spec.models[0].memory.weights",
    ]
    assert [error["value"] for error in first["errors"]] == [1, "160Gi"]


def test_a_field_that_is_not_acted_on_is_a_warning(tmp_path: Path) -> None:
    file = tmp_path / "service.yaml"
    file.write_text(
        (ROOT / "examples/smallest.yaml")
        .read_text()
        .replace("target: 1500ms}", "target: 1500ms}\n    optimize: {by: energy}")
    )
    result = run(file)
    assert result.exit_code == 0
    assert f"warning: {file}:9: spec.objective.optimize.by: " in result.output
    assert result.output.endswith("valid, 1 warning\n")


def test_what_only_the_planner_knows_is_an_error_too(tmp_path: Path) -> None:
    file = tmp_path / "service.yaml"
    file.write_text((ROOT / "examples/assistant.yaml").read_text().replace("target: 1500ms", "target: 500ms"))
    (verdict,) = json.loads(run(file, "-o", "json").stdout)
    assert verdict["errors"]
    assert all(problem["path"] and problem["hint"] and problem["line"] for problem in verdict["errors"])


def test_errors_of_two_services_in_a_file_name_the_service(tmp_path: Path) -> None:
    text = (ROOT / "examples/smallest.yaml").read_text()
    file = tmp_path / "both.yaml"
    file.write_text(f"{text}---\n{text.replace('name: assistant', 'name: other').replace('1500ms', '1501')}")
    first, second = json.loads(run(file, "-o", "json").stdout)
    assert (first["name"], first["valid"]) == ("assistant", True)
    assert (second["name"], second["valid"]) == ("other", False)
    assert second["errors"][0]["line"] > len(text.splitlines())


def test_a_missing_file_is_an_error() -> None:
    result = run("no-such-file.yaml")
    assert result.exit_code != 0
    assert "no-such-file.yaml" in str(result.exception)


def test_invalid_yaml_is_an_error_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "service.yaml"
    file.write_text("a: 1\nb: [\n")
    result = run(file)
    assert result.exit_code == 1
    assert f"{file}:3: is not YAML" in result.output
