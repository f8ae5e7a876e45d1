"""The intensity of a tier is that of its source; while a source fails its last value holds, then the constant."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

from tierserve.api import GenAIDeployment, parse
from tierserve.api.carbon_series import HOLDS_S
from tierserve.observe import carbon_providers
from tierserve.observe.carbon import EVERY_S, RETRY_S, CarbonReader, provider_of
from tierserve.state import Intensity


def service(**tier: Any) -> GenAIDeployment:
    return parse(
        {
            "apiVersion": "serving.tierserve.io/v1alpha1",
            "kind": "GenAIDeployment",
            "metadata": {"name": "green"},
            "spec": {
                "objective": {"responseTime": {"target": "4s"}},
                "models": [{"name": "m", "engine": "emulated", "memory": {"weights": "2Gi", "perRequest": "100Mi"}}],
                "tiers": [
                    {"name": "cloud", "kind": "cloud", "accelerator": {"preset": "A100-80GB"}, **tier},
                    {"name": "edge", "kind": "edge", "accelerator": {"preset": "L4"}, "carbonIntensity": 50},
                ],
            },
        }
    )


class Source:
    """A provider whose answers are set, and a clock."""

    def __init__(self) -> None:
        self.answer: float | Exception = 210.0
        self.asked: list[str | None] = []
        self.now = 1_800_000_000.0
        self.reader = CarbonReader(find=lambda _: self.provide, clock=lambda: self.now)

    def provide(self, zone: str | None) -> float:
        self.asked.append(zone)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def read(self, gaid: GenAIDeployment) -> Intensity:
        return asyncio.run(self.reader.read(gaid))["cloud"]


GAID = service(carbonIntensity=300, carbonSource={"provider": "electricity-maps", "zone": "DE"})


def test_a_tier_without_a_source_has_its_constant() -> None:
    found = asyncio.run(CarbonReader().read(service()))
    assert found == {"cloud": Intensity(473.0, "constant"), "edge": Intensity(50.0, "constant")}


def test_a_provider_is_asked_for_its_zone_once_in_five_minutes() -> None:
    source = Source()
    assert source.read(GAID) == Intensity(210.0, "electricity-maps")
    source.answer, source.now = 90.0, source.now + EVERY_S - 1
    assert source.read(GAID).value == 210.0
    source.now += 2
    assert source.read(GAID).value == 90.0
    assert source.asked == ["DE", "DE"]


@pytest.mark.parametrize("answer", [OSError("down"), float("nan"), -1.0, 1e9])
def test_the_last_value_then_the_constant_hold_while_a_provider_fails(answer: Any) -> None:
    source = Source()
    source.read(GAID)
    source.answer, source.now = answer, source.now + EVERY_S
    assert source.read(GAID) == Intensity(210.0, "electricity-maps, last value")
    source.now += HOLDS_S
    assert source.read(GAID) == Intensity(300.0, "constant")
    source.answer, source.now = 80.0, source.now + RETRY_S
    assert source.read(GAID) == Intensity(80.0, "electricity-maps")


def test_a_series_gives_the_value_of_now_and_its_gap_the_constant() -> None:
    source = Source()
    source.now = 12 * 3600.0
    assert source.read(service(carbonSource={"series": "00:00,400\n12:00,90"})) == Intensity(90.0, "series")
    gap = service(carbonIntensity=300, carbonSource={"series": "2026-06-01T12:00:00Z,100"})
    assert source.read(gap) == Intensity(300.0, "constant")


def test_providers_are_entry_points_and_an_unknown_one_is_an_error_that_lists_them() -> None:
    assert provider_of("uk") is carbon_providers.uk
    with pytest.raises(LookupError, match="electricity-maps, uk"):
        provider_of("none-such")


@pytest.fixture
def replies(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """An HTTP server in the place of the providers' hosts: bodies by path, and the token that it was sent."""
    bodies: dict[str, str] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            bodies["token"] = self.headers.get("auth-token", "")
            body = bodies.get(self.path)
            self.send_response(200 if body else 404)
            self.end_headers()
            self.wfile.write((body or "").encode())

        def log_message(self, *words: object) -> None:
            del words

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        get = carbon_providers.httpx.get

        def here(url: str, **options: Any) -> Any:
            return get(f"http://127.0.0.1:{server.server_address[1]}/{url.split('/', 3)[3]}", **options)

        monkeypatch.setattr(carbon_providers.httpx, "get", here)
        yield bodies
        server.shutdown()


def test_the_answer_of_electricity_maps_is_read_with_its_token(
    replies: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(carbon_providers.VARIABLE, "key")
    replies["/v3/carbon-intensity/latest?zone=DE"] = '{"zone": "DE", "carbonIntensity": 302, "unit": "gCO2eq/kWh"}'
    assert carbon_providers.electricity_maps("DE") == 302.0
    assert replies["token"] == "key"
    monkeypatch.delenv(carbon_providers.VARIABLE)
    with pytest.raises(ValueError, match=carbon_providers.VARIABLE):
        carbon_providers.electricity_maps("DE")


def test_the_answer_of_great_britain_is_the_measured_value_or_else_the_forecast(replies: dict[str, str]) -> None:
    replies["/intensity"] = '{"data": [{"intensity": {"forecast": 266, "actual": 263, "index": "moderate"}}]}'
    assert carbon_providers.uk(None) == 263.0
    replies["/intensity"] = '{"data": [{"intensity": {"forecast": 266, "actual": null}}]}'
    assert carbon_providers.uk(None) == 266.0
    with pytest.raises(ValueError, match="zone"):
        carbon_providers.uk("DE")
