"""Which model each tier and site runs, with how many slots, and what is left of the response time there."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from tierserve.api.errors import Problem, ValidationFailed
from tierserve.api.units import Duration
from tierserve.api.v1alpha1.deployment import GenAIDeployment
from tierserve.api.v1alpha1.models import BYTES_PER_TOKEN, Model
from tierserve.api.v1alpha1.tiers import Tier
from tierserve.api.v1alpha1.traffic import KINDS_ALLOWED, TrafficClass
from tierserve.plan import hardware as hw
from tierserve.queueing.batching.profile import BatchProfile, Sizes

WAIT_SHARE = 0.1
"""Share of the time left on a tier that is kept for waiting when the slots of a replica are chosen."""


class PlacementError(ValidationFailed):
    """A tier can run none of its models as the objective asks; `problems` name field, value and hint."""


@dataclass(frozen=True, slots=True)
class Placement:
    """One pool: a model on one site of a tier. Times in seconds.

    Attributes:
        tier, site, kind: where; kind is cloud, edge or device.
        model, engine, source: what runs there.
        slots: requests one replica holds at once.
        profile: step times of a replica.
        input_tokens, output_tokens: means over the classes that the tier serves, weighted by their shares.
        uplink_s, downlink_s: t_UL and t_DL, half the round trip and the bytes over the bandwidth.
        min_replicas, max_replicas: bounds at this site.
        stabilization_window_s: of the autoscaler, None: its own.
        scale_to_zero_after_s: idle time before scaling to zero (min_replicas 0); None: as long as a start-up takes.
        headroom: share of the load that slots are kept for on top of it.
        max_wait_s: how long a request may wait and still have its first token in time; inf without such an objective.
        startup_s: prior of the time to start a replica.
        percentile, target_s: this per cent of the requests must wait and be served within target_s.
        bound: what sets the slots: memory, responseTime, firstToken, perToken or engine.
        measured: whether the profile was measured; else it is the roofline prior.
        service_tail_s: the percentile of the service time with all slots taken; None: as the mean.
        meets_target: whether a request that never waits keeps the target.
        context_tokens: most tokens of prompt and answer together.
        sizes: (share, input tokens, output tokens) of the requests; () where only the means are known.
        spread_known: whether `sizes` has the spread of the answers in it, and not only the means of classes.
        engine_args: arguments of the engine by name.
        adapters: source of each LoRA adapter by name.
        per_replica: accelerators of a replica.
        bounds: slots that each bound alone would allow.
    """

    tier: str
    site: str
    kind: str
    model: str
    engine: str
    source: str | None
    slots: int
    profile: BatchProfile
    input_tokens: float
    output_tokens: float
    uplink_s: float
    downlink_s: float
    min_replicas: int
    max_replicas: int
    startup_s: float
    percentile: float
    target_s: float
    bound: str = "memory"
    measured: bool = True
    service_tail_s: float | None = None
    meets_target: bool = True
    context_tokens: int = 4096
    headroom: float = 0.0
    stabilization_window_s: float | None = None
    scale_to_zero_after_s: float | None = None
    max_wait_s: float = math.inf
    sizes: Sizes = ()
    spread_known: bool = False
    engine_args: Mapping[str, str] = field(default_factory=dict, compare=False)
    adapters: Mapping[str, str] = field(default_factory=dict, compare=False)
    per_replica: int = 1
    bounds: dict[str, int] = field(default_factory=dict, compare=False)

    @property
    def pool(self) -> str:
        """Name of the pool: tier-site."""
        return f"{self.tier}-{self.site}"

    @property
    def mixture(self) -> Sizes:
        """The sizes, or the means as the only one."""
        return self.sizes or ((1.0, self.input_tokens, self.output_tokens),)

    @property
    def service_s(self) -> float:
        """T(slots): mean service time in a full replica, the cautious figure for Erlang C."""
        return _service_time(self.profile, self.slots, self.mixture)

    @property
    def service_quantile_s(self) -> float:
        """The objective's percentile of the service time in a full replica."""
        return self.service_s if self.service_tail_s is None else self.service_tail_s

    @property
    def rate(self) -> float:
        """Requests per second that one full replica finishes."""
        return self.slots / self.service_s

    @property
    def network_s(self) -> float:
        """t_UL + t_DL."""
        return self.uplink_s + self.downlink_s


@lru_cache(maxsize=4096)
def _service_time(profile: BatchProfile, slots: int, sizes: Sizes) -> float:
    return profile.mean_service_time(slots, sizes)


def place(gaid: GenAIDeployment) -> tuple[Placement, ...]:
    """Return one placement per site of each tier that is on, in the order of the file.

    A tier runs the first model allowed there whose weights and one request fit the memory of a replica and that keeps
    the times of the objective when alone; where none is fast enough, the first that fits.

    Raises:
        PlacementError: a class has no tier that is on; a tier has no model whose weights and one request fit its
            memory; its network alone takes longer than the target; or no measured model is fast enough even alone. An
            estimated one only loses `meets_target`, since the estimate may be wrong.
    """
    placements: list[Placement] = []
    problems = _classes_without_tier(gaid)
    for index, tier in enumerate(gaid.spec.tiers):
        if tier.is_off:
            continue
        try:
            placements += _on_tier(gaid, tier, index)
        except PlacementError as error:
            problems += error.problems
    if problems:
        raise PlacementError(problems)
    return tuple(placements)


def _classes_without_tier(gaid: GenAIDeployment) -> list[Problem]:
    return [
        Problem(
            path=f"spec.traffic[{index}]",
            message=f"class {traffic.name} has no tier: each that may serve it is off (replicas.max 0)",
            hint="give one of these tiers a replicas.max above 0, or add another to routing.overflow",
        )
        for index, traffic in enumerate(gaid.spec.traffic)
        if not gaid.tiers_for(traffic)
    ]


def _on_tier(gaid: GenAIDeployment, tier: Tier, index: int) -> list[Placement]:
    model, sized = _choose(gaid, tier, index)
    pools = [placement_of(gaid, tier, site, model, sized) for site in tier.sites_or_default]
    if pools[0].target_s <= 0.0:
        raise _network_too_slow(gaid, tier, index, pools[0])
    if pools[0].measured and not pools[0].meets_target:
        raise _too_slow(gaid, tier, model, pools[0])
    return pools


def placement_on(gaid: GenAIDeployment, tier: Tier, model: Model) -> Placement:
    """Return the pool of `model` on the first site of `tier`, even if the planner would run another model there."""
    sized = _sized(gaid, tier, model, tokens_on(gaid, tier, model))
    return placement_of(gaid, tier, tier.sites_or_default[0], model, sized)


def classes_of(gaid: GenAIDeployment, tier: Tier) -> tuple[TrafficClass, ...]:
    """Return the classes that are routed to `tier`; those that may see it if none is, and all if none may."""
    routed = tuple(one for one in gaid.spec.traffic if any(to.name == tier.name for to in gaid.tiers_for(one)))
    allowed = tuple(one for one in gaid.spec.traffic if tier.kind in KINDS_ALLOWED[one.privacy])
    return routed or allowed or gaid.spec.traffic


def tokens_on(gaid: GenAIDeployment, tier: Tier, model: Model) -> hw.Tokens:
    """Return the mean tokens of a request on `tier`, classes weighted by their shares."""
    classes = classes_of(gaid, tier)
    means = [(one.share, one.input, one.output or model.output.tokens) for one in classes]
    return hw.mean_tokens(hw.spread_out(means, model.output.spread))


def network_times(tier: Tier, model: Model, tokens: hw.Tokens) -> tuple[float, float]:
    """Return (t_UL, t_DL) in seconds: half a round trip each, and the bytes of the request over the bandwidth."""
    scale = tokens.output / model.output.tokens
    up, down = 8.0 * BYTES_PER_TOKEN * tokens.input, 8.0 * model.output_bytes * scale
    return tier.rtt_s / 2.0 + up / tier.uplink_bps, tier.rtt_s / 2.0 + down / tier.downlink_bps


@dataclass(frozen=True, slots=True)
class Sized:
    """What one replica holds and does: step times, slots, the time that is left, the tail of its service."""

    tokens: hw.Tokens
    profile: BatchProfile
    slots: hw.Slots
    target_s: float
    service_tail_s: float


def _sized(gaid: GenAIDeployment, tier: Tier, model: Model, tokens: hw.Tokens) -> Sized:
    profile = hw.profile_of(model, tier.hardware, tokens)
    network_s = sum(network_times(tier, model, tokens))
    objective = gaid.spec.objective.response_time
    slots = hw.slots_of(model, tier.hardware, tokens, profile, _limits(gaid, network_s))
    tail_s = hw.service_quantile(profile, slots.slots, tokens, objective.percentile)
    return Sized(tokens, profile, slots, objective.target.value - network_s, tail_s)


def placement_of(gaid: GenAIDeployment, tier: Tier, site: str, model: Model, sized: Sized) -> Placement:
    """Return the pool of a model on a site, with replicas sized so."""
    tokens, slots = sized.tokens, sized.slots
    uplink_s, downlink_s = network_times(tier, model, tokens)
    return Placement(
        tier=tier.name,
        site=site,
        kind=tier.kind,
        model=model.name,
        engine=model.engine,
        source=model.source,
        slots=slots.slots,
        profile=sized.profile,
        input_tokens=tokens.input,
        output_tokens=tokens.output,
        uplink_s=uplink_s,
        downlink_s=downlink_s,
        min_replicas=tier.min_replicas,
        max_replicas=tier.max_replicas,
        startup_s=tier.startup_s(model.engine, hw.weights_bytes(model)),
        percentile=gaid.spec.objective.response_time.percentile,
        target_s=sized.target_s,
        bound=slots.binds,
        measured=model.profile is not None,
        service_tail_s=sized.service_tail_s,
        meets_target=slots.meets_target,
        context_tokens=model.context_tokens,
        headroom=tier.replicas.headroom,
        stabilization_window_s=_seconds(tier.replicas.stabilization_window),
        scale_to_zero_after_s=_seconds(tier.replicas.scale_to_zero_after),
        max_wait_s=_max_wait_s(gaid, sized, uplink_s + downlink_s),
        sizes=tokens.classes,
        spread_known=model.output.spread is not None,
        engine_args=model.engine_args,
        adapters={adapter.name: adapter.source for adapter in model.adapters},
        per_replica=tier.hardware.per_replica,
        bounds=slots.bounds,
    )


def _seconds(given: Duration | None) -> float | None:
    return None if given is None else given.value


def _max_wait_s(gaid: GenAIDeployment, sized: Sized, network_s: float) -> float:
    """Return the wait that the first token leaves after its prefill in a full replica, a hundredth of it at least."""
    objective = gaid.spec.objective.first_token
    if objective is None:
        return math.inf
    left_s = objective.value - network_s
    prefill_s = sized.profile.prefill(sized.slots.slots, sized.tokens.input, sized.tokens.output)
    return max(left_s - prefill_s, 0.01 * max(left_s, 0.0), 1e-3)


def _limits(gaid: GenAIDeployment, network_s: float) -> hw.Limits:
    objective = gaid.spec.objective
    return hw.Limits(
        service_s=(objective.response_time.target.value - network_s) * (1.0 - WAIT_SHARE),
        first_token_s=objective.first_token.value - network_s if objective.first_token else math.inf,
        per_token_s=objective.per_token.value if objective.per_token else math.inf,
        percentile=objective.response_time.percentile,
    )


def _choose(gaid: GenAIDeployment, tier: Tier, index: int) -> tuple[Model, Sized]:
    models, first = gaid.models_of(tier), None
    for model in models:
        tokens = tokens_on(gaid, tier, model)
        if not hw.fits(model, tier.hardware, tokens):
            continue
        sized = _sized(gaid, tier, model, tokens)
        if sized.slots.meets_target:
            return model, sized
        first = first or (model, sized)
    if first is None:
        raise PlacementError([_does_not_fit(gaid, tier, index, model) for model in models])
    return first


def _does_not_fit(gaid: GenAIDeployment, tier: Tier, index: int, model: Model) -> Problem:
    hardware, tokens = tier.hardware, tokens_on(gaid, tier, model)
    weights, each = hw.weights_bytes(model), hw.request_bytes(model, tokens)
    have = hw.replica_bytes(hardware)
    more = math.ceil((weights + each) / max(hardware.memory_bytes - hardware.reserve_bytes, 1.0))
    return Problem(
        path=f"spec.models[{gaid.spec.models.index(model)}].memory",
        message=(
            f"model {model.name} ({gib(weights)} of weights, {gib(each)} a request) does not fit a replica of tier "
            f"{tier.name} ({hardware.per_replica} x {hardware.name}: {gib(have)} without the reserve)"
        ),
        hint=f"set spec.tiers[{index}].accelerator.perReplica: {more}, allow a smaller model, or a larger accelerator",
    )


def _network_too_slow(gaid: GenAIDeployment, tier: Tier, index: int, one: Placement) -> PlacementError:
    target = gaid.spec.objective.response_time.target
    message = f"must be more than the {one.network_s * 1e3:.3g} ms that the network of tier {tier.name} takes"
    hint = f"give a longer target, a nearer tier, or another spec.tiers[{index}].network"
    return PlacementError([Problem("spec.objective.responseTime.target", message, hint, str(target))])


def _too_slow(gaid: GenAIDeployment, tier: Tier, model: Model, one: Placement) -> PlacementError:
    objective = gaid.spec.objective
    name = min(("responseTime", "firstToken", "perToken"), key=lambda bound: one.bounds[bound])
    values = {"responseTime": objective.response_time.target, "firstToken": objective.first_token}
    value = values.get(name, objective.per_token)
    work, percentile = (one.input_tokens, one.output_tokens), objective.response_time.percentile
    alone = {
        "responseTime": _alone(one, percentile) / (1.0 - WAIT_SHARE) + one.network_s,
        "firstToken": one.profile.prefill(1, *work) + one.network_s,
        "perToken": one.profile.decode(1, *work),
    }[name]
    path = "spec.objective.responseTime.target" if name == "responseTime" else f"spec.objective.{name}"
    message = (
        f"must be at least {alone * 1e3:.4g} ms, which model {model.name} on tier {tier.name} takes for one request, "
        f"the network ({one.network_s * 1e3:.3g} ms) and a tenth for waiting included"
    )
    hint = f"give at least {alone * 1e3:.4g}ms, fewer output tokens, or a faster model on this tier"
    return PlacementError([Problem(path, message, hint, str(value))])


def _alone(one: Placement, percentile: float) -> float:
    tokens = hw.Tokens(one.input_tokens, one.output_tokens, one.sizes)
    return hw.service_quantile(one.profile, 1, tokens, percentile)


def gib(amount: float) -> str:
    """Return bytes as people read them: 250 MiB, 16 GiB, 7.81 TiB."""
    for size, unit in ((2.0**40, "TiB"), (2.0**30, "GiB")):
        if amount >= size:
            return f"{amount / size:.4g} {unit}"
    return f"{amount / 2**20:.3g} MiB"
