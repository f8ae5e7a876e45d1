"""`spec.tiers[]`: tiers on which models may run: cloud, edge sites, devices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from tierserve.api.carbon_series import SERIES_PATTERN, carbon_series
from tierserve.api.presets import ACCELERATORS, RESERVE, TIERS, TierPreset
from tierserve.api.units import Amount, BitRate, Duration, Mass, Power, Quantity
from tierserve.api.v1alpha1.base import NAME_PATTERN, Label, ModelName, Name, Part, Subdomain
from tierserve.api.v1alpha1.pod_template import PodTemplate

Kind = Literal["cloud", "edge", "device"]
# The keys of presets.ACCELERATORS; a test compares the two.
Preset = Literal[
    "A100", "A100-40GB", "A100-80GB", "H100", "H100-80GB", "Jetson-Orin", "L4", "V100", "V100-16GB", "V100-32GB", "cpu"
]
RESOURCE_PATTERN = r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?/[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$"
STARTUP_S = {"vllm": 100.0, "llamacpp": 8.0, "emulated": 3.0}  # vLLM: of an 8B model, whose weights are 16 GB
LOAD_BYTES_PER_S = 0.8e9
"""Rate at which vLLM is assumed to load weights beyond those of an 8B model; the policy measures the start-up time."""
WORLD_CARBON_INTENSITY = 473.0  # gCO2e/kWh, world mean of 2024 (Ember, Global Electricity Review 2025)


class Toleration(Part):
    """A toleration as in a Kubernetes pod."""

    key: str | None = Field(
        None, max_length=316, description="Taint key; if empty with Exists, all taints are tolerated."
    )
    operator: Literal["Exists", "Equal"] = Field("Equal", description="Relation of the key to the value.")
    value: str | None = Field(None, max_length=63, description="Taint value.")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        None, description="Taint effect; if empty, all effects are tolerated."
    )
    toleration_seconds: int | None = Field(
        None, description="Time for which a NoExecute taint is tolerated, in seconds."
    )


class Placement(Part):
    """Nodes on which the replicas of a tier may run."""

    node_selector: dict[str, Label] = Field({}, max_length=32, description="Labels of the nodes.")
    tolerations: tuple[Toleration, ...] = Field((), max_length=16, description="Tolerations of the pods.")
    runtime_class_name: str | None = Field(None, max_length=253, description="RuntimeClass of the pods, e.g. nvidia.")
    nodes_on_demand: bool = Field(
        False,
        description="Whether a cluster autoscaler adds nodes for pending pods; the service is then Degraded only after "
        "pods have been pending for 15 minutes.",
    )


class ModelCache(Part):
    """Where the nodes of a tier keep downloaded models; one download serves all replicas that share it."""

    host_path: str | None = Field(
        None,
        pattern=r"^/[^:]*$",
        max_length=1024,
        description="Directory of the node, shared by its replicas; must be writable for the user of the image (1000).",
    )
    claim_name: Subdomain | None = Field(
        None, description="PersistentVolumeClaim; shared by all replicas of the tier if it is ReadWriteMany."
    )
    image_volume: bool = Field(
        False,
        description="Mount models of oci:// as image volumes, which the node pulls and keeps as images. Requires "
        "Kubernetes 1.33 with the feature gate ImageVolume, and a container runtime that has them (containerd 2.1).",
    )
    max_size: Quantity | None = Field(
        None, description="Size above which the least recently used models are removed; with an emptyDir its limit."
    )


class Site(Part):
    """One location of a tier; numbers of replicas are per site."""

    name: Name = Field(description="Name of the site, unique in the tier.")
    placement: Placement | None = Field(None, description="Nodes of this site; replaces that of the tier.")
    pod_template: PodTemplate | None = Field(
        None, description="Fields of the pods of this site, merged over podTemplate of the tier."
    )


class Accelerator(Part):
    """The accelerator of a replica: a preset, each figure of which can be overridden."""

    preset: Preset = Field("cpu", description="Preset that gives the figures; each can be overridden.")
    resource: str | None = Field(
        None,
        pattern=RESOURCE_PATTERN,
        max_length=253,
        description="Extended resource of one accelerator, e.g. amd.com/gpu, gpu.intel.com/xe, nvidia.com/mig-1g.10gb "
        "or google.com/tpu; defaults to nvidia.com/gpu, and to none with preset cpu.",
    )
    memory: Quantity | None = Field(None, description="Memory of one accelerator.")
    reserve: Quantity | None = Field(None, description="Memory kept free on each accelerator; defaults to 5%.")
    flops: Amount | None = Field(None, description="Peak FLOP/s of one accelerator at the precision of the model.")
    memory_bandwidth: Quantity | None = Field(None, description="Memory bandwidth of one accelerator, in bytes/s.")
    per_replica: int = Field(1, ge=1, le=64, description="Accelerators per replica (tensor parallelism).")


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
    half_batch: float | None = None
    steepness: float = 1.0


class Network(Part):
    """The network between clients and the tier; defaults depend on the kind of tier."""

    rtt: Duration | None = Field(None, description="Round-trip time between clients and tier.")
    uplink: BitRate | None = Field(None, description="Bit rate from clients to the tier, per site.")
    downlink: BitRate | None = Field(None, description="Bit rate from the tier to clients, per site.")


class Replicas(Part):
    """Minimum and maximum number of replicas, per site."""

    min: int = Field(
        1,
        ge=0,
        le=100_000,
        description="Minimum number of replicas; with 0 an idle tier scales to zero until the next request.",
    )
    max: int | None = Field(
        None,
        ge=0,
        le=100_000,
        description="Maximum number of replicas; defaults to 100 (cloud), 8 (edge), 1 (device); 0 disables the tier, "
        "whatever min is.",
    )
    scale_to_zero_after: Duration | None = Field(
        None,
        description="Idle time after which the last replica of a tier with min 0 is removed; defaults to the start-up "
        "time, but at least 30s.",
    )
    stabilization_window: Duration | None = Field(
        None,
        description="How long a surplus must have stood before replicas are removed, as stabilizationWindowSeconds of "
        "a HorizontalPodAutoscaler; defaults to six times what a new replica takes to be felt (start-up time, wait "
        "allowed and service time), at least 30s, and longer while responses are late.",
    )
    headroom: float = Field(
        0.0,
        ge=0,
        le=10,
        description="Relative load increase for which spare slots are kept, e.g. 0.5 for 50%.",
    )


class TierPower(Part):
    """Electrical power of one accelerator."""

    idle: Power | None = Field(None, description="Power when idle.")
    max: Power | None = Field(None, description="Power when busy.")
    half_batch: float | None = Field(
        None,
        ge=0.01,
        le=100_000,
        description="Concurrent requests of a replica at which the power is half way from idle to max, of a measured "
        "curve that is logistic in the logarithm of the batch; if omitted, the power rises with the utilisation.",
    )
    steepness: float | None = Field(
        None, ge=0.01, le=100, description="Steepness of that curve per doubling of the batch; defaults to 1."
    )


class Embodied(Part):
    """Emissions of the manufacture of one accelerator, spread evenly over its lifetime."""

    carbon: Mass = Field(description="CO2-equivalent emissions of the manufacture.")
    lifetime: Duration = Field(Duration("35040h"), description="Time in use; defaults to four years.")

    @property
    def grams_per_hour(self) -> float:
        """Grams of CO2e for each hour of the lifetime."""
        return self.carbon.value / (self.lifetime.value / 3600.0)


class CarbonSource(Part):
    """Where the carbon intensity of a tier is read, as it changes over the day."""

    provider: Annotated[str, Field(pattern=NAME_PATTERN, max_length=40)] | None = Field(
        None,
        description="Provider of live data: electricity-maps, uk, or an entry point of tierserve.carbon_sources.",
    )
    zone: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$", max_length=40)] | None = Field(
        None, description="Zone of the provider, e.g. DE or US-CAL-CISO."
    )
    series: Annotated[str, Field(pattern=SERIES_PATTERN, max_length=65536)] | None = Field(
        None,
        description="Time series as CSV lines `time,gCO2e/kWh`, where the time is RFC 3339, or HH:MM in UTC for a day "
        "that repeats. Each value holds until the next one.",
    )


class Tier(Part):
    """A tier: hardware, network, numbers of replicas, prices, and the models that may run on it."""

    name: Name = Field(description="Name, unique in the list.")
    kind: Kind = Field(description="Kind of tier; determines the defaults of network and replicas.")
    sites: tuple[Site, ...] = Field((), max_length=64, description="Locations; defaults to one site named `default`.")
    placement: Placement = Field(Placement(), description="Nodes for the replicas.")
    model_cache: ModelCache = Field(
        ModelCache(), description="Volume for downloaded models; defaults to an emptyDir of each pod."
    )
    pod_template: PodTemplate | None = Field(
        None, description="Fields of the pods, merged over those that the operator sets."
    )
    accelerator: Accelerator = Field(Accelerator(), description="Accelerator of a replica.")
    network: Network = Field(Network(), description="Network between clients and the tier.")
    replicas: Replicas = Field(Replicas(), description="Minimum and maximum number of replicas per site.")
    startup: Duration | None = Field(
        None, description="Initial estimate of the start-up time of a replica; measured afterwards."
    )
    price: float | None = Field(None, ge=0, description="Price of one accelerator per hour.")
    power: TierPower = Field(TierPower(), description="Electrical power of one accelerator.")
    carbon_intensity: float | None = Field(
        None,
        ge=0,
        le=5000,
        description="Carbon intensity of the electricity, in gCO2e per kWh; defaults to the world mean of 2024, 473. "
        "Holds where carbonSource gives none.",
    )
    carbon_source: CarbonSource | None = Field(None, description="Source of a carbon intensity that changes.")
    pue: float = Field(
        1.0,
        ge=1,
        le=5,
        description="Power usage effectiveness: power of the data centre over that of the accelerators. Multiplies "
        "power, energy and carbon.",
    )
    embodied: Embodied | None = Field(
        None, description="Emissions of the manufacture of one accelerator; shown apart from those of the electricity."
    )
    models: tuple[ModelName, ...] = Field(
        (), max_length=16, description="Models allowed on the tier, in order of preference; defaults to all."
    )

    @property
    def preset(self) -> TierPreset:
        """Defaults of this kind of tier."""
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
        """Whether the tier is disabled: no objects are rendered for it and no request is routed to it."""
        return self.replicas.max == 0

    @property
    def min_replicas(self) -> int:
        """Minimum number of replicas per site."""
        return 0 if self.is_off else self.replicas.min

    @property
    def max_replicas(self) -> int:
        """Maximum number of replicas per site, at least the minimum."""
        return self.replicas.max if self.replicas.max is not None else max(self.replicas.min, self.preset.max_replicas)

    @property
    def carbon_g_per_kwh(self) -> float:
        """Carbon intensity where no time is given: the field, else the mean of the series, else the world mean."""
        if self.carbon_intensity is not None:
            return self.carbon_intensity
        if self.carbon_source is not None and self.carbon_source.series is not None:
            return carbon_series(self.carbon_source.series).mean
        return WORLD_CARBON_INTENSITY

    def startup_s(self, engine: str, weights_bytes: float = 0.0) -> float:
        """Initial estimate of the start-up time of a replica that runs `engine`, in seconds."""
        if self.startup:
            return self.startup.value
        more = max(0.0, weights_bytes - 16e9) / LOAD_BYTES_PER_S if engine == "vllm" else 0.0
        return STARTUP_S[engine] + more

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
            resource=given.resource or base.resource,
            half_batch=self.power.half_batch,
            steepness=self.power.steepness or 1.0,
        )
