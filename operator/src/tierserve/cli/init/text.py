"""A new service file as text: YAML with comments, or JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import orjson
import yaml

from tierserve.api.v1alpha1.deployment import GROUP, KIND, VERSION
from tierserve.cli.init.answers import Answers, TierAnswer

_ENGINES = {
    "emulated": "reproduces the timings of a model without weights or accelerator; for trials and plans",
    "llamacpp": "llama.cpp, on CPUs or GPUs",
    "vllm": "vLLM, on GPUs or CPUs",
}


def as_yaml(answers: Answers) -> str:
    """Return the file as YAML whose comments say what each field is for."""
    return "\n".join(_lines(answers)) + "\n"


def as_json(answers: Answers) -> str:
    """Return the file as JSON, which has no comments."""
    return orjson.dumps(_document(answers), option=orjson.OPT_INDENT_2).decode() + "\n"


def _lines(answers: Answers) -> Iterator[str]:
    yield "# A service of TierServe. Fields: docs/reference.md. Check: tierserve validate; try: tierserve up."
    yield f"apiVersion: {GROUP}/{VERSION}"
    yield f"kind: {KIND}"
    yield "metadata:"
    yield f"  name: {scalar(answers.name)}"
    yield "spec:"
    yield "  objective:"
    yield f"    # {answers.percentile:g}% of the requests must be answered within the target, network included: the"
    yield "    # autoscaler keeps as many replicas as that needs."
    yield f"    responseTime: {{percentile: {answers.percentile:g}, target: {scalar(answers.target)}}}"
    yield "    # firstToken: 500ms  # and the first token of a stream within this time"
    yield "  models:"
    for tier in answers.tiers:
        yield from _model(tier, answers.tokens)
    yield "  tiers:"
    for tier in answers.tiers:
        yield from _tier(tier)
    yield from _optional(answers)


def _model(tier: TierAnswer, tokens: int) -> Iterator[str]:
    yield f"    - name: {scalar(tier.model)}"
    if tier.size:
        yield f"      size: {tier.size}"
    yield f"      engine: {tier.engine}  # {_ENGINES[tier.engine]}"
    if tier.source:
        yield f"      source: {scalar(tier.source)}"
    yield f"      output: {{tokens: {tokens}}}  # mean tokens of a response"
    yield "      # Step times are estimated until they are measured: tierserve profile FILE --model NAME --write"


def _tier(tier: TierAnswer) -> Iterator[str]:
    yield f"    - name: {scalar(tier.name)}"
    yield f"      kind: {tier.kind}"
    yield f"      accelerator: {{preset: {scalar(tier.preset)}}}"
    yield f"      replicas: {{min: {tier.least}, max: {tier.most}}}" + (
        "  # min 0: scales to zero without requests" if tier.least == 0 else ""
    )
    yield f"      models: [{scalar(tier.model)}]"


def _optional(answers: Answers) -> Iterator[str]:
    yield "  # Classes of requests. privacy: device keeps a class on devices, site on a device or an edge site."
    yield "  # traffic:"
    yield "  #   - {name: chat, share: 1, privacy: public, input: 128}"
    # The nearest first: what an edge site has no slot for goes to the cloud.
    others = [tier.name for kind in ("edge", "cloud") for tier in answers.tiers if tier.kind == kind]
    if len(answers.tiers) > 1 and others:
        yield "  # Requests go to the first tier of this list that has a free slot."
        yield f"  # routing: {{overflow: [{', '.join(others)}]}}"


def _document(answers: Answers) -> dict[str, Any]:
    models = [
        {"name": tier.model}
        | ({"size": tier.size} if tier.size else {})
        | {"engine": tier.engine}
        | ({"source": tier.source} if tier.source else {})
        | {"output": {"tokens": answers.tokens}}
        for tier in answers.tiers
    ]
    tiers = [
        {
            "name": tier.name,
            "kind": tier.kind,
            "accelerator": {"preset": tier.preset},
            "replicas": {"min": tier.least, "max": tier.most},
            "models": [tier.model],
        }
        for tier in answers.tiers
    ]
    objective = {"responseTime": {"percentile": answers.percentile, "target": answers.target}}
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": KIND,
        "metadata": {"name": answers.name},
        "spec": {"objective": objective, "models": models, "tiers": tiers},
    }


def scalar(value: str) -> str:
    """Return a string as YAML reads it back, in quotes only where it needs them, also inside of [] and {}."""
    plain = value and not any(mark in value for mark in ",[]{}:#\"'\n") and _read(value) == value
    return value if plain else json.dumps(value)


def _read(value: str) -> object:
    try:
        return yaml.safe_load(value)
    except yaml.YAMLError:
        return None
