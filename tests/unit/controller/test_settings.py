"""Settings from the environment."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tierserve.controller.settings import from_environment


def test_variables_are_settings_of_the_operator_and_of_what_it_renders():
    found = from_environment(
        {"TIERSERVE_RESYNC_PERIOD": "2.5", "TIERSERVE_SERVING_IMAGE": "here/serving:1", "PATH": "/bin",
         "TIERSERVE_GATEWAY_REPLICAS": "3", "TIERSERVE_IMAGE_PULL_SECRETS": "a, b"}
    )  # fmt: skip
    assert (found.resync_period, found.kube.serving_image, found.kube.gateway_replicas) == (2.5, "here/serving:1", 3)
    assert found.kube.image_pull_secrets == ("a", "b")


@pytest.mark.parametrize(
    ("text", "seconds"), [("10", 10.0), ("10s", 10.0), ("1m30s", 90.0), ("500ms", 0.5), ("2.5", 2.5)]
)
def test_times_are_durations_or_plain_seconds(text, seconds):
    assert from_environment({"TIERSERVE_LIVENESS_STALE_AFTER": text}).liveness_stale_after == seconds


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TIERSERVE_TICK_SECOND", "3"),
        ("TIERSERVE_KUBE", "x"),
        ("TIERSERVE_GATEWAY_REPLICAS", "two"),
        ("TIERSERVE_GATEWAY_REPLICAS", "0"),
        ("TIERSERVE_GATEWAY_REPLICAS", "-1"),
        ("TIERSERVE_GATEWAY_REPLICAS", ""),
        ("TIERSERVE_METRICS_PORT", "70000"),
        ("TIERSERVE_LOG_FORMAT", "yaml"),
        ("TIERSERVE_IMAGE_PULL_POLICY", "Sometimes"),
        *(("TIERSERVE_RESYNC_PERIOD", value) for value in ("0", "-1", "nan", "inf", "ten", "", "10 s", "0s")),
    ],
)
def test_a_variable_that_cannot_be_used_is_named(name, value):
    with pytest.raises(ValueError, match=f"^{name}: "):
        from_environment({name: value})


def test_all_variables_that_cannot_be_used_are_named_at_once():
    with pytest.raises(ValueError, match=r"TIERSERVE_RESYNC_PERIOD: .*; TIERSERVE_WRONG: "):
        from_environment({"TIERSERVE_RESYNC_PERIOD": "x", "TIERSERVE_WRONG": "1"})


def test_a_bad_variable_ends_the_operator_with_a_message_that_names_it():
    done = subprocess.run(
        [sys.executable, "-m", "kopf", "run", "--standalone", "-A", "-m", "tierserve.controller.handlers"],
        env={**os.environ, "TIERSERVE_RESYNC_PERIOD": "soon"},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.rstrip().splitlines()[-1].startswith("tierserve operator: TIERSERVE_RESYNC_PERIOD: ")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TIERSERVE_OPERATOR_PORT_9090_TCP", "tcp://10.0.0.1:9090"),
        ("TIERSERVE_OPERATOR_PORT_9090_TCP_ADDR", "10.0.0.1"),
        ("TIERSERVE_OPERATOR_SERVICE_HOST", "10.0.0.1"),
        ("TIERSERVE_GATEWAY_SERVICE_PORT_HTTP", "80"),
        ("TIERSERVE_GATEWAY_PORT", "tcp://10.0.0.1:80"),
    ],
)
def test_variables_that_kubernetes_makes_for_services_are_no_settings(name, value):
    assert from_environment({name: value}) == from_environment({})


def test_labels_and_peers_are_json_and_anything_else_is_named_with_its_variable():
    peers = '[{"podSelector": {"matchLabels": {"app": "vmagent"}}}]'
    found = from_environment({"TIERSERVE_MONITORING_LABELS": '{"release": "m"}', "TIERSERVE_SCRAPE_FROM": peers}).kube
    assert found.monitoring_labels == {"release": "m"}
    assert found.scrape_from == [{"podSelector": {"matchLabels": {"app": "vmagent"}}}]
    for name, text in (("MONITORING_LABELS", '{"a": 1}'), ("MONITORING_LABELS", "a=b"), ("SCRAPE_FROM", '{"a": {}}')):
        with pytest.raises(ValueError, match=f"TIERSERVE_{name}"):
            from_environment({f"TIERSERVE_{name}": text})


@pytest.mark.parametrize(("service", "family"), [("10.96.0.1", "IPv4"), ("fd00:10:96::1", "IPv6"), ("", "IPv4")])
def test_the_family_of_pods_addresses_is_that_of_the_address_of_the_api_server(service: str, family: str):
    assert from_environment({"KUBERNETES_SERVICE_HOST": service}).kube.ip_family == family


def test_the_ip_family_may_be_given_and_another_word_is_named():
    given = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "TIERSERVE_IP_FAMILY": "IPv6"}
    assert from_environment(given).kube.ip_family == "IPv6"
    with pytest.raises(ValueError, match="TIERSERVE_IP_FAMILY"):
        from_environment({"TIERSERVE_IP_FAMILY": "v6"})
