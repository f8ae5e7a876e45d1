"""Settings from the environment."""

from __future__ import annotations

import pytest

from tierserve.controller.settings import from_environment


def test_variables_are_settings_of_the_operator_and_of_what_it_renders():
    found = from_environment(
        {"TIERSERVE_RESYNC_PERIOD": "2.5s", "TIERSERVE_SERVING_IMAGE": "here/serving:1", "PATH": "/bin",
         "TIERSERVE_GATEWAY_REPLICAS": "3", "TIERSERVE_IMAGE_PULL_SECRETS": "a,b"}
    )  # fmt: skip
    assert found.resync_period.value == 2.5
    assert (found.kube.serving_image, found.kube.gateway_replicas) == ("here/serving:1", 3)
    assert found.kube.image_pull_secrets == ("a", "b")


def test_a_variable_that_nobody_knows_is_named():
    with pytest.raises(ValueError, match="TIERSERVE_RESYNC_PERIODS: no such setting"):
        from_environment({"TIERSERVE_RESYNC_PERIODS": "3"})


def test_a_value_that_cannot_be_read_is_named_with_its_variable():
    with pytest.raises(ValueError, match="TIERSERVE_GATEWAY_REPLICAS: 'two' is not a int"):
        from_environment({"TIERSERVE_GATEWAY_REPLICAS": "two"})


@pytest.mark.parametrize(
    ("text", "seconds"), [("10s", 10.0), ("2m30s", 150.0), ("500ms", 0.5), ("7", 7.0), ("2.5", 2.5)]
)
def test_durations_are_texts_with_a_unit_or_plain_seconds(text, seconds):
    found = from_environment({"TIERSERVE_RESYNC_PERIOD": text, "TIERSERVE_LIVENESS_STALE_AFTER": text})
    assert (found.resync_period.value, found.liveness_stale_after.value) == (seconds, seconds)


@pytest.mark.parametrize("text", ["", "soon", "10 s", "-1s", "1.2.3"])
def test_a_duration_that_cannot_be_read_is_named_with_its_variable(text):
    with pytest.raises(ValueError, match=r"TIERSERVE_RESYNC_PERIOD: .* is not a Duration such as '10s'"):
        from_environment({"TIERSERVE_RESYNC_PERIOD": text})


def test_variables_of_the_pod_that_kubernetes_makes_for_services_are_no_settings():
    """A Service called tierserve-operator gives its pods TIERSERVE_OPERATOR_SERVICE_HOST and more."""
    assert from_environment({"TIERSERVE_OPERATOR_PORT_9090_TCP": "tcp://10.0.0.1:9090"}) == from_environment({})


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
