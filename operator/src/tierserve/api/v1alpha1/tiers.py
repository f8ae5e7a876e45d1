"""`spec.tiers[]`: where models may run: cloud, edge sites, devices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from tierserve.api.presets import ACCELERATORS, RESERVE, TIERS, TierPreset
from tierserve.api.units import Amount, BitRate, Duration, Power, Quantity
from tierserve.api.v1alpha1.base import Label, ModelName, Name, Part

Kind = Literal["cloud", "edge", "device"]
# The keys of presets.ACCELERATORS; a test keeps the two alike.
Preset = Literal[
    "A100", "A100-40GB", "A100-80GB", "H100", "H100-80GB", "Jetson-Orin", "L4", "V100", "V100-16GB", "V100-32GB", "cpu"
]
STARTUP_S = {"vllm": 100.0, "llamacpp": 8.0, "emulated": 3.0}
WORLD_CARBON_INTENSITY = 473.0  # gCO2e/kWh, world mean of 2024 (Ember, Global Electricity Review 2025)


class Toleration(Part):
    """A toleration as in a Kubernetes pod."""

    key: str | None = Field(None, max_length=316, description="Taint key; empty with Exists tolerates all.")
    operator: Literal["Exists", "Equal"] = Field("Equal", description="How the key relates to the value.")
    value: str | None = Field(None, max_length=63, description="Taint value.")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(None, description="Effect tolerated.")
    toleration_seconds: int | None = Field(None, description="How long a NoExecute taint is tolerated.")


class Placement(Part):
    """Which nodes the replicas of a tier may run on."""

    node_selector: dict[str, Label] = Field({}, max_length=32, description="Labels that a node must have.")
    tolerations: tuple[Toleration, ...] = Field((), max_length=16, description="Taints that are tolerated.")
    runtime_class_name: str | None = Field(None, max_length=253, description="RuntimeClass of the pods, e.g. nvidia.")
    nodes_on_demand: bool = Field(
        False,
        description="Whether an autoscaler adds nodes for pending pods; they may then be pending for 15 minutes before "
        "the service is Degraded.",
    )


class Site(Part):
    """One location of a tier; replicas are counted per site."""

    name: Name = Field(description="Name of the site, unique in the tier.")
    placement: Placement | None = Field(None, description="Nodes of this site, in place of those of the tier.")


class Accelerator(Part):
    """The accelerator of a replica: a preset by name, each figure of which can be overridden."""

    preset: Preset = Field("cpu", description="Figures by name; each can be overridden.")
    memory: Quantity | None = Field(None, description="Memory of one accelerator.")
    reserve: Quantity | None = Field(None, description="Memory kept free on each accelerator; 5% when left out.")
    flops: Amount | None = Field(None, description="Peak FLOP/s of one accelerator at the precision served.")
    memory_bandwidth: Quantity | None = Field(None, description="Memory bandwidth of one accelerator, bytes/s.")
    per_replica: int = Field(1, ge=1, le=64, description="Accelerators per replica (tensor parallel).")


@dataclass(frozen=True, slots=True)
class Hardware:
    """One accelerator with all figures resolved: bytes, FLOP/s, bytes/s, watts, price per hour, Kubernetes resource."""

    name: str
    memory_bytes: float
    reserve_bytes: float
    flops: float
    bandwidth: float
    idle_w: float
    max_w: float
    price: float
    per_replica: int
    resource: str | None


class Network(Part):
    """The network between clients and the tier; figures of the kind of tier where left out."""

    rtt: Duration | None = Field(None, description="Round trip between client and tier.")
    uplink: BitRate | None = Field(None, description="Rate from clients to the tier, of the whole site.")
    downlink: BitRate | None = Field(None, description="Rate from the tier to clients, of the whole site.")


class Replicas(Part):
    """Floor and ceiling of the number of replicas, per site."""

    min: int = Field(
        1, ge=0, le=100_000, description="Fewest replicas; with 0 an idle tier scales to zero until the next request."
    )
    max: int | None = Field(
        None,
        ge=0,
        le=100_000,
        description="Most replicas; cloud 100, edge 8, device 1 if left out; 0 switches the tier off, whatever min is.",
    )
    scale_to_zero_after: Duration | None = Field(
        None,
        description="How long the last replica of a tier with min 0 may be idle before it is removed; as long as a "
        "start-up takes, at least 30s, when left out.",
    )
    headroom: float = Field(
        0.0,
        ge=0,
        le=10,
        description="Share by which the load may grow at once, before replicas can start; slots are kept for it.",
    )
    standby: Literal["adaptive", "none"] | None = Field(
        None,
        description="Replicas kept ready beyond the current load: `adaptive`, as many as past arrivals needed, or "
        "`none`; adaptive where a start-up takes a minute or more, when left out.",
    )


class TierPower(Part):
    """Electrical power of one accelerator."""

    idle: Power | None = Field(None, description="Power when idle.")
    max: Power | None = Field(None, description="Power when busy.")


class Tier(Part):
    """A cloud, an edge or devices: hardware, network, bounds, prices, and the models that may run there."""

    name: Name = Field(description="Name, unique in the list.")
    kind: Kind = Field(description="Which kind of tier, which gives the defaults of network and replicas.")
    sites: tuple[Site, ...] = Field((), max_length=64, description="Locations; one named `default` when left out.")
    placement: Placement = Field(Placement(), description="Nodes for the replicas.")
    accelerator: Accelerator = Field(Accelerator(), description="Accelerator of a replica.")
    network: Network = Field(Network(), description="Network between clients and the tier.")
    replicas: Replicas = Field(Replicas(), description="Bounds of the number of replicas per site.")
    startup: Duration | None = Field(None, description="Time to start a replica, a first guess; then learned.")
    price: float | None = Field(None, ge=0, description="Price of one accelerator for an hour.")
    power: TierPower = Field(TierPower(), description="Electrical power of one accelerator.")
    carbon_intensity: float | None = Field(None, ge=0, le=5000, description="gCO2e per kWh of the electricity.")
    models: tuple[ModelName, ...] = Field(
        (), max_length=16, description="Models allowed here, the preferred first; all when left out."
    )

    @property
    def preset(self) -> TierPreset:
        """Figures of this kind of tier."""
        return TIERS[self.kind]

    @property
    def sites_or_default(self) -> tuple[str, ...]:
        """Names of the sites; `("default",)` when none is listed."""
        return tuple(site.name for site in self.sites) or ("default",)

    @property
    def pools(self) -> tuple[str, ...]:
        """Names of the pools, one per site: tier-site."""
        return tuple(f"{self.name}-{site}" for site in self.sites_or_default)

    @property
    def rtt_s(self) -> float:
        """Round trip in seconds."""
        return self.network.rtt.value if self.network.rtt else self.preset.rtt_s

    @property
    def uplink_bps(self) -> float:
        """Bits per second towards the tier."""
        return self.network.uplink.value if self.network.uplink else self.preset.uplink_bps

    @property
    def downlink_bps(self) -> float:
        """Bits per second from the tier."""
        return self.network.downlink.value if self.network.downlink else self.preset.downlink_bps

    @property
    def is_off(self) -> bool:
        """Whether no replica may run: nothing is made for the tier, and no request goes there."""
        return self.replicas.max == 0

    @property
    def min_replicas(self) -> int:
        """Floor per site."""
        return 0 if self.is_off else self.replicas.min

    @property
    def max_replicas(self) -> int:
        """Ceiling per site, at least the floor."""
        return self.replicas.max if self.replicas.max is not None else max(self.replicas.min, self.preset.max_replicas)

    @property
    def carbon_g_per_kwh(self) -> float:
        """Carbon intensity, or the world's mean."""
        return self.carbon_intensity if self.carbon_intensity is not None else WORLD_CARBON_INTENSITY

    def startup_s(self, engine: str) -> float:
        """Prior of the start-up time of a replica that runs `engine`, seconds."""
        return self.startup.value if self.startup else STARTUP_S[engine]

    @property
    def hardware(self) -> Hardware:
        """The accelerator with preset and overrides resolved."""
        given, base = self.accelerator, ACCELERATORS[self.accelerator.preset]
        memory = (given.memory or Quantity(base.memory)).value
        return Hardware(
            name=base.name,
            memory_bytes=memory,
            reserve_bytes=given.reserve.value if given.reserve else RESERVE * memory,
            flops=(given.flops or Amount(base.flops)).value,
            bandwidth=given.memory_bandwidth.value if given.memory_bandwidth else base.bandwidth,
            idle_w=self.power.idle.value if self.power.idle else base.idle_w,
            max_w=self.power.max.value if self.power.max else base.max_w,
            price=self.price if self.price is not None else base.price,
            per_replica=given.per_replica,
            resource=base.resource,
        )
