"""Random values in random fields: schema, models and API server agree."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tierserve.api.loading import to_document
from tierserve.api.schema.crd import schema
from tierserve.api.schema.validation import validated, with_defaults

RESOURCES = "/apis/serving.tierserve.io/v1alpha1/namespaces/default/genaideployments"
BASE = yaml.safe_load((Path(__file__).parent / "documents.yaml").read_text())["base"]
Path_ = tuple[str | int, ...]


def fields(node: dict[str, Any], path: Path_ = ("spec",)) -> Iterator[tuple[Path_, dict[str, Any]]]:
    """Every field of the schema and its node; of a list its first element."""
    yield path, node
    for name, child in node.get("properties", {}).items():
        yield from fields(child, (*path, name))
    if "items" in node:
        yield from fields(node["items"], (*path, 0))


FIELDS = dict(fields(schema()["properties"]["spec"]))
WORDS = """
a A large light cloud edge home chat site device apiKey true vllm cpu L4 cost none oidc hf://a/b hf:// a.b:c https://x
0s 1s 900ms 1h5m 1.5us 3µs 7d 999999h999999h 1Gi 900Gi 1.5G 1e3 1E2 2k 13.1T 1e99 9e18 1e19 -1 +1 .5 1. 0 00
10Gbit 5kbit 400W 1.2kW 3kg 1t 99999999999999999999999999999999 111111111111111111111111111111111
/var/cache amd.com/gpu
"""
TEXTS = [*WORDS.split(), "00:00,300\n12:00,90"]
NUMBERS = [0, 1, 2, 8, -1, 95, 4096, 5000, 10**6, 10**9, 2**40, 2**53, 0.0, 0.5, 1.0, 1.5, 99.99, 1e3]
LISTS = [[], ["light"], ["light", "light"], ["edge", "cloud"], [None], [1], [{}], [{"name": "cloud"}]]
ODD = [None, True, False, "", "1 Gi", "1Gi\n", "a\n", {}, {"name": "a"}, {"a": "b"}, *LISTS]
ANYTHING = st.one_of(st.sampled_from(TEXTS), st.sampled_from(NUMBERS), st.sampled_from(ODD))


def values(node: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Three times in four of the right type, often of the right form."""
    if "enum" in node:
        right: st.SearchStrategy[Any] = st.sampled_from(node["enum"])
    elif node.get("type") in {"integer", "number"}:
        right = st.sampled_from(NUMBERS)
    elif "pattern" in node:
        right = st.sampled_from([text for text in TEXTS if re.fullmatch(node["pattern"], text)])
    elif node.get("type") in {"object", "array"}:
        right = st.sampled_from([{}] if node["type"] == "object" else LISTS)
    else:
        right = st.sampled_from(TEXTS if node.get("type") == "string" else [True, False])
    return st.one_of(right, right, right, ANYTHING)


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    """The base with one to three fields set to anything."""
    whole: dict[str, Any] = copy.deepcopy(BASE)
    for path in draw(st.lists(st.sampled_from(sorted(FIELDS, key=str)), min_size=1, max_size=3)):
        put(whole, path, copy.deepcopy(draw(values(FIELDS[path]))))
    return whole


def put(node: Any, path: Path_, value: Any) -> None:
    """Set a field, creating missing parents; leaves the document unchanged if a parent is not a mapping."""
    *way, last = path
    for step, following in zip(way, path[1:], strict=True):
        fresh: Any = [] if isinstance(following, int) else {}
        if isinstance(node, list):
            if not node:
                node.append(fresh)
            node = node[0]
        elif isinstance(node, dict):
            node = node.setdefault(step, fresh)
    if isinstance(node, list):
        node[:1] = [value]
    elif isinstance(node, dict):
        node[last] = value


@given(documents())
@settings(max_examples=150, deadline=None)
def test_what_the_schema_accepts_the_models_accept_and_give_back(document: dict[str, Any]) -> None:
    gaid, problems = validated(document)
    assert all("docs/reference.md" not in problem.hint for problem in problems), problems
    if gaid is not None:
        again, _ = validated(to_document(gaid))
        assert again == gaid


@pytest.mark.slow
@pytest.mark.apiserver
@given(document=documents())
@settings(max_examples=250, deadline=None, derandomize=True)
def test_the_api_server_gives_the_same_verdict_and_the_same_defaults(apiserver: Any, document: dict[str, Any]) -> None:
    gaid, problems = validated(document)
    code, reply = apiserver.create(RESOURCES, document, dry_run=True)
    assert (code == 201) == (gaid is not None), (reply.get("message"), problems)
    if gaid is not None:
        assert reply["spec"] == with_defaults(document)["spec"]
