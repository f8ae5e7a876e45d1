"""A real kube-apiserver on loopback with the project's CRD, for the tests marked `apiserver`."""

from __future__ import annotations

import importlib.util
import secrets
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tierserve.runtime.local.ports import free_ports

ROOT = Path(__file__).resolve().parents[2]
CRD = ROOT / "crds" / "genaideployments.yaml"
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
RESOURCES = "/apis/serving.tierserve.io/v1alpha1/namespaces/default/genaideployments"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The first of these tests may have to wait for the build of the API server."""
    for item in items:
        if item.get_closest_marker("apiserver"):
            item.add_marker(pytest.mark.timeout(1500))


def _script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@contextmanager
def _process(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as sink:
        process = subprocess.Popen(command, stdout=sink, stderr=subprocess.STDOUT)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _until(ready: Callable[[], bool], process: subprocess.Popen[bytes], log: Path, limit_s: float = 60) -> None:
    end = time.monotonic() + limit_s
    while not ready():
        if process.poll() is not None or time.monotonic() > end:
            raise RuntimeError(f"{process.args[0]} does not get ready:\n{log.read_text(errors='replace')[-3000:]}")
        time.sleep(0.05)


def as_kubectl_sends(value: Any) -> Any:
    """1.0 as 1: Go writes whole floats so, and CEL takes no 1.0 where the schema says integer."""
    if isinstance(value, Mapping):
        return {key: as_kubectl_sends(child) for key, child in value.items()}
    if isinstance(value, list):
        return [as_kubectl_sends(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


class ApiServer:
    """Requests to the API server as its administrator; a reply is (status code, decoded JSON)."""

    def __init__(self, url: str, token: str, certificate: Path) -> None:
        self.url, self.token, self.certificate = url, token, certificate
        trusted = ssl.create_default_context(cafile=str(certificate))
        self.client = httpx.Client(
            base_url=url, headers={"Authorization": f"Bearer {token}"}, verify=trusted, timeout=30, trust_env=False
        )

    def get(self, path: str, **headers: str) -> tuple[int, dict[str, Any]]:
        reply = self.client.get(path, headers=headers)
        return reply.status_code, reply.json() if reply.is_success else {"message": reply.text}

    def create(self, path: str, body: Mapping[str, Any], *, dry_run: bool = False) -> tuple[int, dict[str, Any]]:
        """Create with strict validation of fields, as kubectl does."""
        options = {"fieldValidation": "Strict"} | ({"dryRun": "All"} if dry_run else {})
        reply = self.client.post(path, params=options, json=as_kubectl_sends(body))
        return reply.status_code, reply.json()

    def replace_status(self, path: str, body: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
        reply = self.client.put(f"{path}/status", json=body)
        return reply.status_code, reply.json()

    def patch(self, path: str, body: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
        """A merge patch."""
        reply = self.client.patch(path, json=body, headers={"Content-Type": "application/merge-patch+json"})
        return reply.status_code, reply.json()

    def delete(self, path: str) -> int:
        return self.client.delete(path).status_code

    def is_ready(self) -> bool:
        try:
            return self.client.get("/readyz").status_code == 200
        except httpx.HTTPError:
            return False


def _service_account_key(path: Path) -> Path:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = serialization.PrivateFormat.TraditionalOpenSSL
    path.write_bytes(key.private_bytes(serialization.Encoding.PEM, pem, serialization.NoEncryption()))
    return path


def _etcd_command(binary: Path, folder: Path, port: int, peer: int) -> list[str]:
    client, other = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{peer}"
    return [str(binary), f"--data-dir={folder / 'etcd'}", "--unsafe-no-fsync", "--log-level=warn",
            f"--listen-client-urls={client}", f"--advertise-client-urls={client}", f"--listen-peer-urls={other}",
            f"--initial-advertise-peer-urls={other}", f"--initial-cluster=default={other}"]  # fmt: skip


def _apiserver_command(binary: Path, folder: Path, port: int, etcd: int, token: str) -> list[str]:
    tokens = folder / "tokens.csv"
    tokens.write_text(f"{token},admin,admin,system:masters\n")
    key = _service_account_key(folder / "sa.key")
    return [str(binary), f"--etcd-servers=http://127.0.0.1:{etcd}", "--bind-address=127.0.0.1", f"--secure-port={port}",
            f"--cert-dir={folder / 'certs'}", f"--token-auth-file={tokens}", "--authorization-mode=RBAC",
            "--service-account-issuer=https://kubernetes.default.svc", f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}", "--service-cluster-ip-range=10.96.0.0/16",
            "--disable-admission-plugins=ServiceAccount", "--endpoint-reconciler-type=none",
            "--feature-gates=ImageVolume=true"]  # fmt: skip


@pytest.fixture(scope="session")
def script() -> Callable[[str], ModuleType]:
    """A module of the folder scripts, by name."""
    return _script


@contextmanager
def running(folder: Path, binaries: Any) -> Iterator[ApiServer]:
    """An empty API server with its etcd."""
    etcd_port, peer_port, port = free_ports(3)
    token = secrets.token_hex(16)
    log = folder / "apiserver.log"
    with (
        _process(_etcd_command(binaries.etcd, folder, etcd_port, peer_port), folder / "etcd.log"),
        _process(_apiserver_command(binaries.apiserver, folder, port, etcd_port, token), log) as process,
    ):
        certificate = folder / "certs" / "apiserver.crt"
        _until(certificate.exists, process, log)
        server = ApiServer(f"https://127.0.0.1:{port}", token, certificate)
        _until(server.is_ready, process, log)
        yield server


@pytest.fixture(scope="module")
def empty_kube(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """An API server of the module's own, which has no CRD until the module creates it."""
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        binaries = _script("kube_binaries").ensure()
    with running(tmp_path_factory.mktemp("empty-kube"), binaries) as server:
        yield server


@pytest.fixture(scope="session")
def kube(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """An empty API server (built first if need be, in the sight of the user)."""
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        binaries = _script("kube_binaries").ensure()
    with running(tmp_path_factory.mktemp("kube"), binaries) as server:
        yield server


@pytest.fixture(scope="session")
def apiserver(kube: ApiServer) -> ApiServer:
    """The API server with the project's CRD established and the namespace `default` there."""
    code, reply = kube.create(DEFINITIONS, yaml.safe_load(CRD.read_text()))
    assert code == 201, reply.get("message")
    end = time.monotonic() + 30
    while kube.get(RESOURCES)[0] != 200 or kube.get("/api/v1/namespaces/default")[0] != 200:
        assert time.monotonic() < end, "the resource is not served"
        time.sleep(0.05)
    return kube
