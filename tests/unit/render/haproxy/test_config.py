"""The rendered HAProxy configuration: golden file, check by HAProxy, invalid values."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest

from tierserve.api.v1alpha1.base import MODEL_NAME_LENGTH
from tierserve.render.haproxy.config import GatewayClass, GatewayPool, GatewaySpec, render_haproxy
from tierserve.render.haproxy.model import ANY_ADDRESS, COMPLETION_PATHS
from tierserve_serving.engines.base import ENDPOINTS
from tierserve_serving.gateway import haproxy as binary
from tierserve_serving.gateway import model_reader

GOLDEN = Path(__file__).with_name("gateway_golden.cfg")

POOLS = (
    GatewayPool("device-default", "device", "127.0.0.1", 8101, "/device-default", 1, 1, ("smol",), 2.5),
    GatewayPool("edge-berlin", "edge", "127.0.0.1", 8102, "/edge-berlin", 0, 4, ("mid", "smol")),
    GatewayPool("edge-lyon", "edge", "edge.lyon.example", 8103, "/edge-lyon", 8, 4, ("mid",), slack_s=0.5),
    GatewayPool("cloud-default", "cloud", "10.0.0.7", 8104, "", 64, 16, ("org/large-8b",), 0.75, 0.25, "/-/healthz"),
)
CLASSES = (
    GatewayClass("chat", ("edge", "cloud")),
    GatewayClass("personal", ("device",)),
    GatewayClass("health", ("edge",)),
)
LONGEST = "x" * (MODEL_NAME_LENGTH - 9)
MANY = tuple(  # sites of many tiers, and as many models as a file may have, with the longest names
    dataclasses.replace(POOLS[k % 4], name=f"{POOLS[k % 4].name}-{k}", models=(f"org/M:{k % 16:02}@{LONGEST}",))
    for k in range(80)
)
SPEC = GatewaySpec(
    service="assistant",
    port=8080,
    pools=POOLS,
    classes=CLASSES,
    default_class="chat",
    admin_socket="/run/tierserve/admin.sock",
    log_address="127.0.0.1:5140",
    metrics_port=9101,
)


def test_the_file_equals_the_golden_file():
    text = render_haproxy(SPEC)
    if os.environ.get("UPDATE_GOLDEN"):
        GOLDEN.write_text(text)
    assert text == GOLDEN.read_text()


@pytest.mark.haproxy
@pytest.mark.parametrize(
    "change",
    [
        {},
        {"log_address": None, "metrics_port": None},
        {"log_address": "/run/tierserve/log.sock", "retries": 0, "max_connections": 1000, "threads": 2},
        {"pools": POOLS[:1], "classes": (GatewayClass("only", ("device", "edge")),), "default_class": "only"},
        {"pools": tuple(dataclasses.replace(p, models=()) for p in POOLS)},
        {"resolve": "ipv6"},
        {"bind": ANY_ADDRESS, "metrics_bind": ANY_ADDRESS, "metrics_port": 8405},
        {"bind": "::1"},
        {"cors_origins": ("https://chat.example.com", "http://localhost:3000")},
        {"cors_origins": ("*",)},
        {"pools": tuple(dataclasses.replace(p, scale_to_zero=True) for p in POOLS)},
        {"pools": MANY},
    ],
)
def test_haproxy_accepts_every_form_of_it(tmp_path, change):
    path = tmp_path / "haproxy.cfg"
    pools = tuple(dataclasses.replace(p, host="127.0.0.1") for p in change.get("pools", POOLS))
    path.write_text(render_haproxy(dataclasses.replace(SPEC, **{**change, "pools": pools})))
    binary.check_config(binary.find_haproxy(), path)


@pytest.mark.haproxy
def test_a_dns_name_without_an_address_does_not_prevent_the_start(tmp_path):
    path = tmp_path / "haproxy.cfg"
    pools = tuple(dataclasses.replace(p, host="nobody.invalid") for p in POOLS)
    path.write_text(render_haproxy(dataclasses.replace(SPEC, pools=pools, resolve="ipv4")))
    binary.check_config(binary.find_haproxy(), path)


def test_rendering_is_the_same_each_time():
    assert render_haproxy(SPEC) == render_haproxy(dataclasses.replace(SPEC))


def test_a_class_is_routed_only_to_its_own_tiers():
    rules = [line for line in render_haproxy(SPEC).splitlines() if "var(txn.class) -m str personal" in line]
    assert rules
    assert not [line for line in rules if "edge" in line or "cloud" in line if "set-var" in line]


BAD = "x' }\n    use_backend pool_cloud-default if TRUE #"


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("service", {"service": BAD}),
        ("version", {"version": BAD}),
        ("cors_origins", {"cors_origins": (BAD,)}),
        ("bind", {"bind": "127.0.0.1:1 accept-proxy"}),
        ("admin_socket", {"admin_socket": "/tmp/a b"}),
        ("log_address", {"log_address": "127.0.0.1:1\n"}),
        ("tls_certificate", {"tls_certificate": "/a crt /b"}),
        ("default_class", {"default_class": "nope"}),
        ("classes.name", {"classes": (GatewayClass(BAD, ("edge",)),), "default_class": BAD}),
        ("classes.name", {"classes": (*CLASSES, CLASSES[0])}),
        ("tiers", {"classes": (GatewayClass("chat", ("moon",)),)}),
        ("classes", {"classes": ()}),
        ("pools", {"pools": ()}),
        ("pools.name", {"pools": (dataclasses.replace(POOLS[0], name=BAD),)}),
        ("pools.name", {"pools": (POOLS[0], POOLS[0])}),
        ("pools.tier", {"pools": (dataclasses.replace(POOLS[0], tier="a b"),)}),
        ("pools.models", {"pools": (dataclasses.replace(POOLS[0], models=(BAD,)),)}),
        ("pools.path_prefix", {"pools": (dataclasses.replace(POOLS[0], path_prefix="/%[env(HOME)]"),)}),
        ("pools.health_path", {"pools": (dataclasses.replace(POOLS[0], health_path="/x y"),)}),
        ("host", {"pools": (dataclasses.replace(POOLS[0], host="a b"),)}),
        ("port", {"pools": (dataclasses.replace(POOLS[0], port=0),)}),
        ("max_in_flight", {"pools": (dataclasses.replace(POOLS[0], max_in_flight=-1),)}),
    ],
)
def test_what_would_change_the_meaning_of_the_file_is_refused(field, change):
    classes = {} if "pools" not in change else {"classes": (GatewayClass("chat", ("device",)),)}
    with pytest.raises(ValueError, match=field):
        render_haproxy(dataclasses.replace(SPEC, **{**classes, **change}))


def test_the_gateway_forwards_only_paths_that_replicas_serve():
    assert COMPLETION_PATHS == ENDPOINTS
    assert f"acl own path {' '.join(model_reader.GET_PATHS)}" in render_haproxy(SPEC)
