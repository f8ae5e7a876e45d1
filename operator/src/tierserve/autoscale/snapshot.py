"""Snapshot of the learned state of a pool's autoscaler: to bytes that outlive the process, and back.

Saved: start-up times, calibration of step times, scores of the rate's windows, the blocks of the replay, the error
budget and the factor on the stabilization window. Not saved: what is rebuilt within a minute, that is history, load
estimate, recommendations, last decision, reports of single replicas, and the requests in the replayed pools.

The bytes are JSON in zlib, whose checksum detects corruption; pydantic parses only the classes named here, so reading
cannot run code. A snapshot is valid for one pool and the settings that the learned state depends on.
"""

from __future__ import annotations

import zlib
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from tierserve.autoscale.budget import MOST, ErrorBudget
from tierserve.autoscale.calibration import CalibrationState
from tierserve.autoscale.decide import LEARNED, Settings, State
from tierserve.autoscale.rate import FORECASTS, RateState
from tierserve.autoscale.replay import GRID_SIZE, Block, Floats, ReplayState
from tierserve.autoscale.stabilization import Stabilization
from tierserve.queueing.batching.profile import BatchProfile

FORMAT = 5
"""Version of the format: raise it with each change of a saved field or its meaning; other versions are ignored."""
OLDEST_S = 7 * 86400.0
"""Age from which a snapshot is ignored: a load of a week ago says little."""
_HEAD = b"tierserve-autoscale-memory-%d\n" % FORMAT
_MOST_BYTES = 2**23  # of the JSON; up to 1 MB is usual, 4.5 MB with blocks of a second
_EARLIEST_S = -60.0  # clocks of two machines may differ by this


class UnusableError(ValueError):
    """The snapshot is corrupt, outdated, or of another pool or settings; the message gives the reason."""


class _Owner(NamedTuple):
    """Pool and settings that a snapshot belongs to."""

    pool: str
    slots: int
    profile: BatchProfile | None


class _Memory(BaseModel):
    """What is kept; `late` has a row of float32 per block, first bytes first."""

    model_config = ConfigDict(allow_inf_nan=False, ser_json_bytes="base64", val_json_bytes="base64")
    owner: _Owner
    t: float
    startups: tuple[float, ...]
    steps: CalibrationState | None
    errors: tuple[float, ...]
    weight: float
    used: int
    blocks: tuple[tuple[float, float], ...]
    late: bytes
    replayed_s: float
    caution: float
    busy: float
    served: float
    answered: float
    missed: float
    factor: float


def dump_state(state: State, pool: str, settings: Settings, t: float) -> bytes:
    """Return the learned state as bytes: under 100 KB, in a few milliseconds.

    Args:
        state: as `decide` returned it.
        pool: whose it is.
        settings: as given to `decide`.
        t: Unix seconds now.
    """
    blocks = state.replay.blocks
    memory = _Memory.model_construct(
        owner=_owner(pool, settings),
        t=t,
        startups=state.startups,
        steps=replace(state.steps, followed={}, cursor=0) if state.steps else None,
        errors=state.rate.errors,
        weight=state.rate.weight,
        used=state.rate.used,
        blocks=tuple((one.t, one.arrivals) for one in blocks),
        late=_bytes(np.array([one.late for one in blocks])),
        replayed_s=state.replay.seconds,
        caution=state.budget.caution,
        busy=state.budget.busy,
        served=state.budget.served,
        answered=state.budget.answered,
        missed=state.budget.late,
        factor=state.stabilization.factor,
    )
    return _HEAD + zlib.compress(memory.model_dump_json().encode(), 1)


def load_state(data: bytes, pool: str, settings: Settings, t: float) -> State:
    """Return a state with the learned part of a snapshot only.

    Args:
        data: from `dump_state`.
        pool: must be that of `dump_state`.
        settings: their slots and profile must be those of `dump_state`.
        t: Unix seconds now.

    Raises:
        UnusableError: broken, of another version, pool or settings, or older than `OLDEST_S`.
    """
    memory = _parsed(data)
    _check_owner(memory.owner, _owner(pool, settings))
    age_s = t - memory.t
    if not _EARLIEST_S <= age_s <= OLDEST_S:
        raise UnusableError(f"saved {age_s / 86400.0:.1f} days ago")
    late = _check_fit(memory)
    blocks = tuple(Block(at, arrivals, row) for (at, arrivals), row in zip(memory.blocks, late, strict=True))
    return State(
        startups=memory.startups[-LEARNED:],
        steps=memory.steps,
        rate=RateState(errors=memory.errors, weight=memory.weight, used=memory.used),
        replay=ReplayState(blocks=blocks, seconds=memory.replayed_s),
        budget=ErrorBudget(memory.caution, memory.answered, memory.missed, busy=memory.busy, served=memory.served),
        stabilization=Stabilization(factor=memory.factor),
    )


def merge_learned(state: State, known: State) -> State:
    """Return `state` with the learned part of a snapshot.

    Args:
        state: what `decide` returned since the process began.
        known: result of `load_state`.
    """
    scores, replayed, budget = known.rate, known.replay, known.budget
    return replace(
        state,
        startups=(*known.startups, *state.startups)[-LEARNED:],
        steps=known.steps or state.steps,
        rate=replace(state.rate, errors=scores.errors, weight=scores.weight, used=scores.used),
        replay=replace(
            state.replay,
            blocks=(*replayed.blocks, *state.replay.blocks),
            seconds=replayed.seconds + state.replay.seconds,
        ),
        budget=state.budget._replace(
            caution=budget.caution, answered=budget.answered, late=budget.late, busy=budget.busy, served=budget.served
        ),
        stabilization=state.stabilization._replace(factor=known.stabilization.factor),
    )


def _owner(pool: str, settings: Settings) -> _Owner:
    return _Owner(pool, settings.slots, settings.profile)


def _parsed(data: bytes) -> _Memory:
    if not data.startswith(_HEAD):
        raise UnusableError("format of another version")
    try:
        inflater = zlib.decompressobj()
        text = inflater.decompress(data[len(_HEAD) :], _MOST_BYTES)
        if not inflater.eof:
            raise UnusableError("truncated or too long")
        return _Memory.model_validate_json(text)
    except zlib.error as error:
        raise UnusableError(f"corrupt ({error})") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise UnusableError(f"corrupt ({'.'.join(map(str, first['loc']))}: {first['msg']})") from error


def _check_owner(saved_for: _Owner, here: _Owner) -> None:
    for name, before, now in zip(_Owner._fields, saved_for, here, strict=True):
        if before != now:
            raise UnusableError(f"{name} was {before!r} and is {now!r}")


def _check_fit(memory: _Memory) -> Floats:
    """Return the late arrivals per block and pool size.

    Raises `UnusableError` if a length, an index or a number is not one that the code counts on: it would fail at every
    decision.
    """
    late = _floats(memory.late) if len(memory.late) == 4 * GRID_SIZE * len(memory.blocks) else np.array([-1.0])
    figures = (
        *memory.errors,
        memory.weight,
        *(n for _, n in memory.blocks),
        memory.replayed_s,
        memory.answered,
        memory.busy,
    )
    sound = (
        len(memory.errors) == FORECASTS
        and 0 <= memory.used < len(memory.errors)
        and 1.0 <= memory.caution <= MOST
        and memory.factor >= 1.0
        and min(*figures, memory.missed, memory.served) >= 0.0
        and bool(np.all((late >= 0.0) & np.isfinite(late)))
    )
    if not sound:
        raise UnusableError("corrupt (figures out of range)")
    return late.reshape(-1, GRID_SIZE)


def _bytes(values: Floats) -> bytes:
    """Return seven digits of each value; signs and exponents side by side, for they are alike and zlib sees it."""
    return values.astype("<f4").view(np.uint8).reshape(-1, 4).T.tobytes()


def _floats(data: bytes) -> Floats:
    return np.frombuffer(data, np.uint8).reshape(4, -1).T.copy().view("<f4").ravel().astype(np.float64)
