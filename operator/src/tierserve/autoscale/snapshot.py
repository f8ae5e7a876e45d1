"""Snapshot of the learned state of a pool's autoscaler: to bytes that outlive the process, and back.

Saved: start-up times, calibration of step times, season and scores of the forecast models, statistics of the standby
rules (hours to days of observation). Not saved: what is rebuilt within a minute, that is history, load estimate,
recommendations, last decision, reports of single replicas, and the recent requests of the shadow pools (two arrays per
step of the start-up time, most of the state).

The bytes are JSON in zlib, whose checksum detects corruption; pydantic parses only the classes named here, so reading
cannot run code. A snapshot is valid for one pool and the settings that the learned state depends on.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from tierserve.autoscale.calibration.profile import CalibrationState
from tierserve.autoscale.decide import LEARNED, Settings, State
from tierserve.autoscale.forecast.intervals import WINDOW, Residuals
from tierserve.autoscale.forecast.lookahead import LOOKAHEAD_MODELS, LookaheadState
from tierserve.autoscale.forecast.state import MODELS
from tierserve.autoscale.standby.rules import HOLD_S, Floats, Peak, ShadowPool, StandbyState
from tierserve.queueing.batching.profile import BatchProfile

FORMAT = 3
"""Version of the format: raise it with each change of a saved field or its meaning; other versions are ignored."""
OLDEST_S = 7 * 86400.0
"""Age from which a snapshot is ignored: the season is daily, a week-old one may not fit any more."""
MOST_PEAKS = 128
"""Peak loads saved per window; more are merged, to the higher load and the later time (bounds the size)."""
_HEAD = b"tierserve-autoscale-memory-%d\n" % FORMAT
_MOST_BYTES = 2**20  # of the JSON; some 200 KB are usual
_EARLIEST_S = -60.0  # clocks of two machines may differ by this
_RULES = ShadowPool().missed.size


class UnusableError(ValueError):
    """The snapshot is corrupt, outdated, or of another pool or settings; the message gives the reason."""


class _Owner(NamedTuple):
    """Pool and settings that a snapshot belongs to."""

    pool: str
    slots: int
    period_s: float
    profile: BatchProfile | None


class _SavedStandby(BaseModel):
    """`StandbyState` without the last start-up time of its paper; arrays as bytes of float32, first bytes first."""

    model_config = ConfigDict(allow_inf_nan=False, ser_json_bytes="base64", val_json_bytes="base64")
    t: float
    fast: float
    slow: float
    peaks: tuple[Peak, ...]
    seen: float
    answered: float
    late: float
    trust: float | None
    rule: int | None
    asked: bytes
    missed: bytes
    cost: bytes
    drops: bytes


class _Memory(BaseModel):
    model_config = ConfigDict(allow_inf_nan=False)
    owner: _Owner
    t: float
    startups: tuple[float, ...]
    steps: CalibrationState | None
    lookahead: LookaheadState | None
    standby: _SavedStandby | None


def dump_state(state: State, pool: str, settings: Settings, t: float) -> bytes:
    """Return the learned state as bytes: under 100 KB, in a few milliseconds.

    Args:
        state: as `decide` returned it.
        pool: whose it is.
        settings: as given to `decide`.
        t: Unix seconds now.
    """
    memory = _Memory.model_construct(
        owner=_owner(pool, settings),
        t=t,
        startups=state.startups,
        steps=replace(state.steps, followed={}, cursor=0) if state.steps else None,
        lookahead=_map_residuals(state.lookahead, lambda r: Residuals(r.recent)) if state.lookahead else None,
        standby=_saved_standby(state.standby) if state.standby else None,
    )
    return _HEAD + zlib.compress(memory.model_dump_json().encode(), 1)


def load_state(data: bytes, pool: str, settings: Settings, t: float) -> State:
    """Return a state with the learned part of a snapshot only.

    Args:
        data: from `dump_state`.
        pool: must be that of `dump_state`.
        settings: their slots, profile and forecast period must be those of `dump_state`.
        t: Unix seconds now.

    Raises:
        UnusableError: broken, of another version, pool or settings, or older than `OLDEST_S`.
    """
    memory = _parsed(data)
    _check_owner(memory.owner, _owner(pool, settings))
    age_s = t - memory.t
    if not _EARLIEST_S <= age_s <= OLDEST_S:
        raise UnusableError(f"saved {age_s / 86400.0:.1f} days ago")
    _check_fit(memory)
    return State(
        startups=memory.startups[-LEARNED:],
        steps=memory.steps,
        lookahead=_lookahead(memory.lookahead, t) if memory.lookahead else None,
        standby=_standby(memory.standby, max(age_s, 0.0)) if memory.standby else None,
    )


def merge_learned(state: State, known: State) -> State:
    """Return `state` with the learned part of a snapshot.

    Args:
        state: what `decide` returned since the process began.
        known: result of `load_state`.
    """
    return replace(
        state,
        startups=(*known.startups, *state.startups)[-LEARNED:],
        steps=known.steps or state.steps,
        lookahead=known.lookahead or state.lookahead,
        standby=known.standby or state.standby,
    )


def _owner(pool: str, settings: Settings) -> _Owner:
    return _Owner(pool, settings.slots, settings.forecast_period_s, settings.profile)


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


def _check_fit(memory: _Memory) -> None:
    """Raise if lengths or indices are not those that the code counts on: it would fail at every decision."""
    if memory.lookahead and not _is_sound_lookahead(memory.lookahead):
        raise UnusableError("corrupt (lookahead)")
    if memory.standby and not _is_sound_standby(memory.standby):
        raise UnusableError("corrupt (standby)")


def _is_sound_lookahead(lookahead: LookaheadState) -> bool:
    state, settings, models = lookahead.state, lookahead.settings, len(MODELS)
    windows = (state.rates, state.peaks, *(one.ratios for one in lookahead.ramp_scores))
    season = state.season
    return (
        len(lookahead.ramp_scores) == len(LOOKAHEAD_MODELS)
        and len(state.scores) == models
        and 0 <= state.chosen < models
        and max(len(state.predictions), len(state.blocks)) <= settings.blocks
        and all(len(one.models) == models for one in state.predictions)
        and all(len(one.recent) <= WINDOW for one in windows)
        and (season is None or len(season.bins) == len(season.visits) == settings.bins)
    )


def _is_sound_standby(standby: _SavedStandby) -> bool:
    arrays = (standby.asked, standby.missed, standby.cost, standby.drops)
    return (
        len(standby.peaks) == len(HOLD_S)
        and (standby.rule is None or 0 <= standby.rule < _RULES)
        and all(len(one) == 4 * _RULES for one in arrays)
        and all(bool(np.all((a := _floats(one)) >= 0.0) and np.all(np.isfinite(a))) for one in arrays)
    )


def _map_residuals(lookahead: LookaheadState, change: Callable[[Residuals], Residuals]) -> LookaheadState:
    """Return it with every window of ratios changed."""
    state = lookahead.state
    return replace(
        lookahead,
        state=state._replace(rates=change(state.rates), peaks=change(state.peaks)),
        ramp_scores=tuple(one._replace(ratios=change(one.ratios)) for one in lookahead.ramp_scores),
    )


def _lookahead(lookahead: LookaheadState, t: float) -> LookaheadState:
    """Return it as saved, without orders that have had their time.

    Steps are counted from the Unix epoch, so `update_lookahead` sees by itself what was missed: steps without a count
    where the gap is shorter than a horizon, a new beginning with the season kept where it is longer.
    """
    whole = _map_residuals(lookahead, lambda r: Residuals(r.recent, tuple(sorted(r.recent))))
    horizon_s = lookahead.settings.horizon_s
    return replace(whole, pending_scale_ups=tuple(x for x in lookahead.pending_scale_ups if t - horizon_s <= x.t <= t))


def _saved_standby(standby: StandbyState) -> _SavedStandby:
    shadow = standby.shadow
    return _SavedStandby.model_construct(
        t=standby.t,
        fast=standby.fast,
        slow=standby.slow,
        peaks=tuple(_thinned(peak) for peak in standby.peaks),
        seen=standby.seen,
        answered=standby.answered,
        late=standby.late,
        trust=standby.trust,
        rule=standby.rule,
        asked=_bytes(shadow.asked),
        missed=_bytes(shadow.missed),
        cost=_bytes(shadow.cost),
        drops=_bytes(shadow.drops),
    )


def _standby(kept: _SavedStandby, age_s: float) -> StandbyState:
    """Return the state with empty shadow queues, no late requests attributed yet, and peaks at their true age."""
    peaks = (Peak(tuple((t - age_s, load) for t, load in peak.seen)) for peak in kept.peaks)
    return StandbyState(
        t=kept.t,
        fast=kept.fast,
        slow=kept.slow,
        peaks=tuple(peaks),
        shadow=ShadowPool(
            asked=_floats(kept.asked),
            with_margin=_floats(kept.asked),
            missed=_floats(kept.missed),
            cost=_floats(kept.cost),
            drops=_floats(kept.drops),
        ),
        seen=kept.seen,
        answered=kept.answered,
        late=kept.late,
        trust=kept.trust,
        rule=kept.rule,
    )


def _thinned(peak: Peak) -> Peak:
    size = -(-len(peak.seen) // MOST_PEAKS)
    if size <= 1:
        return peak
    groups = (peak.seen[k : k + size] for k in range(0, len(peak.seen), size))
    return Peak(tuple((group[-1][0], group[0][1]) for group in groups))


def _bytes(values: Floats) -> bytes:
    """Return seven digits of each value; signs and exponents side by side, for they are alike and zlib sees it."""
    short = np.minimum(values, np.finfo("<f4").max).astype("<f4")
    return short.view(np.uint8).reshape(-1, 4).T.tobytes()


def _floats(data: bytes) -> Floats:
    return np.frombuffer(data, np.uint8).reshape(4, -1).T.copy().view("<f4").ravel().astype(np.float64)
