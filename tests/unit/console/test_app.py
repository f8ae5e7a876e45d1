"""The console's HTTP API: pages of services, one service, errors with field and hint, and nothing that changes."""

from __future__ import annotations

import pytest
from aiohttp.test_utils import TestClient


async def answered(client: TestClient, path: str, status: int = 200) -> dict:
    async with client.get(path) as response:
        assert response.status == status, await response.text()
        return await response.json()


async def test_a_page_of_services_has_the_totals_of_all(client):
    first = await answered(client, "/api/services?limit=50")
    assert [len(first["services"]), first["matching"], first["totals"]["services"]] == [50, 60, 60]
    assert first["totals"]["ready"] == 60
    assert first["source"]["error"] is None
    rest = await answered(client, "/api/services?limit=50&offset=50")
    assert len(rest["services"]) == 10
    assert first["totals"]["running"] == sum(one["running"] for one in first["services"] + rest["services"])
    assert not {one["name"] for one in first["services"]} & {one["name"] for one in rest["services"]}


async def test_the_filter_reads_name_namespace_and_reason(client):
    assert [one["name"] for one in (await answered(client, "/api/services?text=0007"))["services"]] == ["service-0007"]
    assert (await answered(client, "/api/services?text=SERVING"))["matching"] == 60
    assert (await answered(client, "/api/services?text=no-such"))["matching"] == 0


async def test_a_list_that_has_not_changed_is_not_sent_again(client):
    async with client.get("/api/services") as response:
        tag = response.headers["ETag"]
    async with client.get("/api/services", headers={"If-None-Match": tag}) as response:
        assert response.status == 304
    async with client.get("/api/services?text=0007", headers={"If-None-Match": tag}) as response:
        assert response.status == 200, "another question has another answer"


async def test_a_service_has_its_pools_conditions_history_and_decisions(client):
    found = await answered(client, "/api/services/local/service-0001")
    service = found["service"]
    assert [pool["pool"] for pool in service["poolStatus"]] == ["device-default", "edge-default", "cloud-default"]
    assert {"Ready", "SLOMet", "ScalingActive"} <= {one["type"] for one in service["conditions"]}
    history = found["history"]["edge"]
    assert len(history["time"]) == len(history["p95Seconds"]) >= 1
    assert history["arrivalsPerSecond"][-1] == pytest.approx(service["tiers"][1]["arrivals_per_s"], rel=1e-3)
    assert {one["pool"] for one in found["decisions"]} == {pool["pool"] for pool in service["poolStatus"]}
    assert all(one["reason"] for one in found["decisions"])
    newer = await answered(client, f"/api/services/local/service-0001?since={history['time'][-1]}")
    assert all(time > history["time"][-1] for time in newer["history"]["edge"]["time"])


@pytest.mark.parametrize(
    ("path", "status", "field"),
    [
        ("/api/services?offset=-1", 400, "offset"),
        ("/api/services?limit=9999", 400, "limit"),
        ("/api/services?limit=many", 400, "limit"),
        ("/api/services/local/service-0001?since=nan", 400, "since"),
        ("/api/services/local/none", 404, ""),
        ("/api/services/other/service-0001", 404, ""),
        ("/api/none", 404, ""),
    ],
)
async def test_an_invalid_request_names_its_field(client, path, status, field):
    (error,) = (await answered(client, path, status))["errors"]
    assert error["field"] == field
    assert error["hint"]


@pytest.mark.parametrize("method", ["post", "put", "patch", "delete"])
@pytest.mark.parametrize("path", ["/", "/api/services", "/api/services/local/service-0001", "/static/console.js"])
async def test_no_request_changes_a_service(client, method, path):
    async with client.request(method, path, json={}) as response:
        assert response.status == 405


async def test_the_only_request_with_a_body_is_what_if(client):
    with_body = {
        route.resource.canonical for route in client.app.router.routes() if route.method not in ("GET", "HEAD")
    }
    assert with_body == {"/api/what-if"}


HOSTS = ["localhost:9", "127.0.0.1:9", "[::1]:9", "10.1.2.3", "console.example.com", "CONSOLE.example.com:80"]


@pytest.mark.parametrize("host", HOSTS)
async def test_localhost_addresses_and_allowed_names_are_answered(client, host):
    async with client.get("/", headers={"Host": host}) as response:
        assert response.status == 200


@pytest.mark.parametrize("host", ["evil.example.com", "localhost.evil.example.com", "127.0.0.1.evil.example.com:8090"])
@pytest.mark.parametrize("path", ["/", "/api/services", "/static/console.js"])
async def test_a_page_elsewhere_cannot_reach_it_through_its_own_name(client, host, path):
    async with client.get(path, headers={"Host": host}) as response:
        assert response.status == 421
        assert (await response.json())["errors"][0]["field"] == "Host"


@pytest.mark.parametrize("path", ["/", "/static/console.js", "/api/services", "/api/none", "/none"])
async def test_every_response_allows_only_own_scripts_and_no_frame(client, path):
    async with client.get(path) as response:
        policy = response.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert response.headers["X-Content-Type-Options"] == "nosniff"


async def test_the_page_has_no_inline_script_or_style_and_names_no_other_host(client):
    async with client.get("/") as response:
        page = await response.text()
    assert "://" not in page
    assert "<style" not in page
    assert " style=" not in page
    assert "onclick" not in page
    assert page.count("<script") == page.count('<script src="') + page.count('<script type="module" src="')


async def test_files_outside_the_page_are_not_served(client):
    for path in ("/static/../app.py", "/static/%2e%2e/app.py", "/static/..%2fapp.py"):
        async with client.get(path) as response:
            assert response.status in (403, 404), path
