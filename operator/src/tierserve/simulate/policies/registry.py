"""All policies by name. The values of their parameter run from few replicas to many; the default is the published one.

Where a project publishes no default of its knob (a target per replica is the user's to set), 0.7 of what a replica
holds or does is taken, Knative's figure.
"""

from __future__ import annotations

from tierserve.simulate.policies.aibrix import Apa
from tierserve.simulate.policies.base import Rule
from tierserve.simulate.policies.dynamo import Dynamo, Mode
from tierserve.simulate.policies.hpa import Hpa
from tierserve.simulate.policies.keda import Keda
from tierserve.simulate.policies.kpa import Kpa
from tierserve.simulate.policies.kubeai import KubeAi
from tierserve.simulate.policies.llm_d import LlmDQueue, LlmDSaturation, LlmDSlo, LlmDTokens
from tierserve.simulate.policies.paper import Paper
from tierserve.simulate.policies.ray_serve import RayServe
from tierserve.simulate.policies.skyserve import SkyServe
from tierserve.simulate.policies.static import Static
from tierserve.simulate.policies.wva import WvaQueue, WvaSaturation
from tierserve.simulate.types import Policy, Pool

_SHARES = (1.2, 1.0, 0.85, 0.7, 0.55, 0.4, 0.3, 0.2)
_FACTORS = (0.7, 0.85, 1.0, 1.2, 1.5, 2.0, 3.0)


def _dynamo(mode: Mode) -> Rule:
    def make(pool: Pool, factor: float) -> Policy:
        return Dynamo(pool, factor, mode)

    return Rule(
        name=f"dynamo-{mode}",
        title={"throughput": "Dynamo planner", "load": "Dynamo load loop", "both": "Dynamo, both loops"}[mode],
        source="NVIDIA Dynamo documentation, SLA-based Planner",
        knob="factor on the predicted load"
        if mode == "throughput"
        else "factor on the predicted load, one over it on the SLA",
        default=1.0,
        values=_FACTORS,
        make=make,
    )


_ALL = (
    Rule(
        name="static",
        title="Static peak",
        source="no autoscaler",
        knob="replicas (0: min_replicas)",
        default=0.0,
        values=(1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0),
        make=Static,
    ),
    Rule(
        name="paper",
        title="Erlang C of the paper",
        source="Wang et al., An Overview on Generative AI at Scale with Edge-Cloud Computing (2023)",
        knob="factor on the arrival rate",
        default=1.0,
        values=(*_FACTORS, 5.0),
        make=Paper,
    ),
    Rule(
        name="hpa",
        title="Kubernetes HPA",
        source="kubernetes.io, Horizontal Pod Autoscaling",
        knob="target requests in flight per replica, share of the slots",
        default=0.7,
        values=_SHARES,
        make=Hpa,
    ),
    Rule(
        name="keda",
        title="KEDA",
        source="keda.sh, Scaling Deployments, ScaledObject specification",
        knob="target requests in flight per replica, share of the slots",
        default=0.7,
        values=_SHARES,
        make=Keda,
    ),
    Rule(
        name="kpa",
        title="Knative KPA",
        source="knative.dev, Autoscaling",
        knob="target utilisation of the slots",
        default=0.7,
        values=_SHARES,
        make=Kpa,
    ),
    Rule(
        name="aibrix",
        title="AIBrix APA",
        source="AIBrix documentation, Metric-based autoscaling",
        knob="target requests in flight per replica, share of the slots",
        default=0.7,
        values=_SHARES,
        make=Apa,
    ),
    Rule(
        name="ray-serve",
        title="Ray Serve",
        source="docs.ray.io, Ray Serve Autoscaling; the policy's own code",
        knob="target_ongoing_requests, share of the slots (0: the published 2 requests)",
        default=0.0,
        values=(1.2, 1.0, 0.85, 0.7, 0.55, 0.4, 0.25, 0.0),
        make=RayServe,
    ),
    Rule(
        name="skyserve",
        title="SkyServe",
        source="SkyPilot documentation, SkyServe autoscaling",
        knob="target requests per second of a replica, share of its full rate",
        default=0.7,
        values=(1.2, 1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.35),
        make=SkyServe,
    ),
    _dynamo("throughput"),
    _dynamo("load"),
    _dynamo("both"),
    Rule(
        name="wva-queue",
        title="WVA, queueing model",
        source="llm-d workload-variant-autoscaler; arXiv 2603.09730",
        knob="factor on the targets of TTFT and ITL",
        default=1.0,
        values=(2.0, 1.5, 1.25, 1.0, 0.85, 0.7, 0.5),
        make=WvaQueue,
    ),
    Rule(
        name="wva-saturation",
        title="WVA, saturation",
        source="llm-d workload-variant-autoscaler, Saturation analyzer",
        knob="KV threshold",
        default=0.8,
        values=(1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4),
        make=WvaSaturation,
    ),
    Rule(
        name="llm-d-queue",
        title="llm-d, queue",
        source="llm-d, guide on KEDA with EPP metrics",
        knob="target running requests per replica, share of the slots (0: the published 16)",
        default=0.0,
        values=(0.0, *_SHARES),
        make=LlmDQueue,
    ),
    Rule(
        name="llm-d-saturation",
        title="llm-d, saturation",
        source="llm-d, guide on KEDA with EPP metrics",
        knob="target running requests per replica, share of the slots (0: the published 16)",
        default=0.0,
        values=(0.0, *_SHARES),
        make=LlmDSaturation,
    ),
    Rule(
        name="llm-d-tokens",
        title="llm-d, token-aware",
        source="llm-d, guide on token-aware autoscaling",
        knob="target KV usage of a replica",
        default=0.8,
        values=(1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4),
        make=LlmDTokens,
    ),
    Rule(
        name="llm-d-slo",
        title="llm-d, SLO-aware",
        source="llm-d, guide on SLO-aware autoscaling",
        knob="latency over its target at which replicas are added",
        default=0.55,
        values=(1.1, 0.9, 0.75, 0.65, 0.55, 0.45, 0.35),
        make=LlmDSlo,
    ),
    Rule(
        name="kubeai",
        title="KubeAI",
        source="KubeAI documentation, Autoscaling",
        knob="target active requests per replica, share of the slots (0: the published 100)",
        default=0.0,
        values=(0.0, *_SHARES),
        make=KubeAi,
    ),
)

RULES: dict[str, Rule] = {rule.name: rule for rule in _ALL}
