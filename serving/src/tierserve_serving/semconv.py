"""OpenTelemetry's names for what a server of generative AI measures, in Prometheus' form: the one mapping to them.

Names, buckets and attributes are of the semantic conventions for generative AI (status: development), as of 2026:
`gen_ai.server.request.duration`, `gen_ai.server.time_to_first_token`, `gen_ai.server.time_per_output_token`. In
Prometheus' form dots are underscores and the unit is a suffix. A change of the conventions is a change of this module.
"""

from __future__ import annotations

from dataclasses import dataclass

from tierserve_serving.engines.base import CHAT, COMPLETIONS, EMBEDDINGS, RESPONSES

PROVIDER = "tierserve"
ATTRIBUTES = ("gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model")
ERROR = "error_type"
"""HTTP status of a failed request; empty for others."""
_OPERATIONS = {CHAT: "chat", RESPONSES: "chat", COMPLETIONS: "text_completion", EMBEDDINGS: "embeddings"}


@dataclass(frozen=True, slots=True)
class SemanticHistogram:
    """One of the conventions' histograms, in seconds."""

    name: str
    text: str
    buckets: tuple[float, ...]


REQUEST_DURATION = SemanticHistogram(
    "gen_ai_server_request_duration_seconds",
    "Response time of a request.",
    (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92),
)
TIME_TO_FIRST_TOKEN = SemanticHistogram(
    "gen_ai_server_time_to_first_token_seconds",
    "Time to the first token of a successful stream, with the time in the queue.",
    (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
)
TIME_PER_OUTPUT_TOKEN = SemanticHistogram(
    "gen_ai_server_time_per_output_token_seconds",
    "Time per output token after the first, of each choice of a successful response.",
    (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5),
)


def attributes(path: str, model: str) -> dict[str, str]:
    """Attributes of a request by label.

    Args:
        path: one of `ENDPOINTS`; the operation of another one is `unknown`.
        model: name in the request, out of a bounded set.
    """
    return dict(zip(ATTRIBUTES, (_OPERATIONS.get(path, "unknown"), PROVIDER, model), strict=True))
