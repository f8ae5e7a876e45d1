"""The expiry of the gateway's certificate: the earliest of the file, none where nothing can be read."""

from __future__ import annotations

import datetime
import re
from pathlib import Path

import pytest
from aiohttp.test_utils import TestClient, TestServer
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tierserve_serving.gateway.agent import Agent
from tierserve_serving.gateway.agent_config import AgentConfig
from tierserve_serving.gateway.certificate import Certificate
from tierserve_serving.gateway.metrics import GatewayMetrics

SOON = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)
NAME = "tierserve_gateway_certificate_not_after_timestamp_seconds"


def pem(not_after: datetime.datetime) -> bytes:
    """A self-signed certificate that expires then."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(not_after - datetime.timedelta(days=90)).not_valid_after(not_after)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def test_an_issuer_that_expires_first_counts(tmp_path: Path) -> None:
    path = tmp_path / "tls.crt"
    path.write_bytes(pem(SOON + datetime.timedelta(days=60)) + pem(SOON))
    assert Certificate(path).not_after() == SOON.timestamp()


@pytest.mark.parametrize("content", [None, b"", b"-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n"])
def test_what_cannot_be_read_has_no_expiry_and_is_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes | None
) -> None:
    path = tmp_path / "tls.crt"
    if content is not None:
        path.write_bytes(content)
    certificate = Certificate(path)
    assert [certificate.not_after(), certificate.not_after()] == [None, None]
    assert len(caplog.records) == 1
    path.write_bytes(pem(SOON))
    assert certificate.not_after() == SOON.timestamp(), "a renewed file is read"


async def test_the_agent_exports_the_expiry_of_its_certificate(tmp_path: Path) -> None:
    path = tmp_path / "tls.crt"
    path.write_bytes(pem(SOON))
    config = AgentConfig(
        service="assistant", port=0, admin_socket=str(tmp_path / "s"), pools=(), classes=(), certificate=str(path)
    )
    async with TestClient(TestServer(Agent(config).application())) as client:
        text = await (await client.get("/metrics")).text()
    assert float(re.findall(rf"^{NAME} (.+)$", text, re.MULTILINE)[0]) == SOON.timestamp()


def test_without_a_certificate_there_is_no_series_on_which_an_alert_could_fire() -> None:
    metrics = GatewayMetrics()
    for not_after, shown in ((None, None), (5.0, 5.0), (7.0, 7.0), (None, None), (8.0, 8.0)):
        metrics.certificate(not_after)
        assert metrics.registry.get_sample_value(NAME) == shown
