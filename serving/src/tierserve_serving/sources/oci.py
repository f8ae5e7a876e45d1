"""`oci://REGISTRY/REPOSITORY[:TAG|@DIGEST][/FILE]`: models in a container registry, by its HTTP API.

ModelPack artifacts and artifacts of ORAS have one file per layer, named by an annotation; layers that are tar archives
(images whose files are a model) are unpacked. Credentials, where the registry requires them: OCI_USERNAME and
OCI_PASSWORD. A registry on loopback is spoken to without TLS, as container engines do.
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import httpx

from tierserve_serving.sources.errors import SourceError, TransferError
from tierserve_serving.sources.remote import RemoteFile, Snapshot, Want, choose

_MANIFESTS = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
_NAME_ANNOTATIONS = ("org.cncf.model.filepath", "org.opencontainers.image.title")
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_TIMEOUT_S = 30.0
_PATTERN = re.compile(
    r"oci://(?P<host>[^/]+)/(?P<name>[a-z0-9._/-]+?)(:(?P<tag>[\w.-]{1,128})|@(?P<digest>sha256:[0-9a-f]{64}))?"
    r"(?:/(?P<file>[^/:@]+\.gguf))?"
)


@dataclass(frozen=True, slots=True)
class Artifact:
    """A manifest in a registry."""

    base: str
    name: str
    reference: str
    file: str | None
    authorization: dict[str, str] = field(default_factory=dict)

    def url(self, kind: str, reference: str) -> str:
        """URL of a manifest or blob."""
        return f"{self.base}/v2/{self.name}/{kind}/{reference}"


def parse(source: str) -> Artifact:
    """The parts of the source."""
    match = _PATTERN.fullmatch(source)
    if match is None:
        raise SourceError(
            f"must be oci://REGISTRY/REPOSITORY:TAG or @sha256:DIGEST ({source!r})",
            "InvalidSource",
            "write it as in oci://registry.example.com/models/qwen2.5-0.5b:q4",
        )
    host = match["host"]
    is_local = urlsplit(f"//{host}").hostname in ("localhost", "127.0.0.1", "::1")
    base = f"{'http' if is_local else 'https'}://{host}"
    return Artifact(base, match["name"], match["digest"] or match["tag"] or "latest", match["file"])


def snapshot(source: str, want: Want) -> Snapshot:
    """List the layers that the engine needs.

    Raises:
        SourceError: no access, no such repository or tag, or Unreachable.
    """
    artifact = parse(source)
    digest, manifest = _manifest(source, artifact, artifact.reference)
    layers: dict[str, dict[str, Any]] = {}
    archives: dict[str, dict[str, Any]] = {}
    for layer in manifest.get("layers", ()):
        name = next(
            (layer.get("annotations", {}).get(key) for key in _NAME_ANNOTATIONS if key in layer.get("annotations", {})),
            None,
        )
        if _is_archive(layer):
            archives[f"{layer['digest'].replace(':', '-')}.tar"] = layer
        elif name:
            layers[name] = layer
    if archives and not layers:
        names, entry = list(archives), None
    else:
        names, entry = choose(list(layers), want, artifact.file, source)
    files = [
        RemoteFile(
            name, int(layer["size"]), layer["digest"].removeprefix("sha256:"),
            partial(_read, source, artifact, layer["digest"]), is_archive=name in archives,
        )
        for name in names
        for layer in [layers.get(name) or archives[name]]
    ]  # fmt: skip
    return Snapshot(digest, tuple(files), entry)


def _is_archive(layer: dict[str, Any]) -> bool:
    return bool(re.search(r"[.+]tar(\.gzip|\+gzip|\.gz)?$", str(layer.get("mediaType", ""))))


def _manifest(source: str, artifact: Artifact, reference: str) -> tuple[str, dict[str, Any]]:
    with _errors_named(source, artifact), _client() as client:
        response = _get(client, artifact, artifact.url("manifests", reference), {"Accept": ", ".join(_MANIFESTS)})
        response.read()
        _check(source, artifact, response)
        manifest: dict[str, Any] = response.json()
        digest = response.headers.get("Docker-Content-Digest") or reference
    if "manifests" in manifest:
        return _manifest(source, artifact, _of_this_machine(manifest["manifests"])["digest"])
    return digest, manifest


def _of_this_machine(manifests: list[dict[str, Any]]) -> dict[str, Any]:
    """The manifest for this processor; the first one of an index without platforms."""
    here = _ARCHITECTURES.get(platform.machine(), platform.machine())
    return next((m for m in manifests if m.get("platform", {}).get("architecture") == here), manifests[0])


@contextmanager
def _read(source: str, artifact: Artifact, digest: str, offset: int) -> Iterator[Iterator[bytes]]:
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={offset}-"} if offset else {})
    with _errors_named(source, artifact, is_transfer=True), _client() as client:
        response = _get(client, artifact, artifact.url("blobs", digest), headers)
        try:
            _check(source, artifact, response)
            skip = 0 if response.status_code == 206 else offset
            yield _without(skip, response.iter_raw())
        finally:
            response.close()


def _without(skip: int, chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The content after `skip` bytes, from a registry that does not serve ranges."""
    for chunk in chunks:
        yield chunk[skip:]
        skip = max(0, skip - len(chunk))


def _client() -> httpx.Client:
    return httpx.Client(timeout=_TIMEOUT_S, follow_redirects=True)


def _get(client: httpx.Client, artifact: Artifact, url: str, headers: dict[str, str]) -> httpx.Response:
    """GET a URL; a registry that requires a token names the server that issues it."""
    response = client.send(client.build_request("GET", url, headers=headers), stream=True)
    if response.status_code != 401:
        return response
    response.close()
    authorization = _authorization(client, response.headers.get("WWW-Authenticate", ""), artifact)
    return client.send(client.build_request("GET", url, headers=headers | authorization), stream=True)


def _authorization(client: httpx.Client, challenge: str, artifact: Artifact) -> dict[str, str]:
    user, password = os.environ.get("OCI_USERNAME", ""), os.environ.get("OCI_PASSWORD", "")
    basic = httpx.BasicAuth(user, password) if user else None
    scheme, _, rest = challenge.partition(" ")
    if scheme.lower() != "bearer":
        return {"Authorization": basic._auth_header} if basic else {}
    fields = dict(re.findall(r'(\w+)="([^"]*)"', rest))
    query = {"service": fields.get("service", ""), "scope": fields.get("scope", f"repository:{artifact.name}:pull")}
    response = client.get(fields.get("realm", ""), params=query, auth=basic)
    if not response.is_success:
        return {}
    answer = response.json()
    return {"Authorization": f"Bearer {answer.get('token') or answer.get('access_token')}"}


def _check(source: str, artifact: Artifact, response: httpx.Response) -> None:
    code = response.status_code
    if code in (401, 403):
        is_set = bool(os.environ.get("OCI_USERNAME"))
        raise SourceError(
            f"the registry gives no access to {source} (status {code})",
            "AccessDenied" if is_set else "TokenRequired",
            "set OCI_USERNAME and OCI_PASSWORD, on Kubernetes with models[].sourceSecretName",
        )
    if code == 404:
        raise SourceError(f"{source} is not in the registry", "RevisionNotFound", "check repository, tag and digest")
    if not response.is_success:
        raise TransferError(f"the registry answers with status {code}")


@contextmanager
def _errors_named(source: str, artifact: Artifact, *, is_transfer: bool = False) -> Iterator[None]:
    try:
        yield
    except (httpx.HTTPError, TransferError) as error:
        if is_transfer:
            raise TransferError(f"{type(error).__name__}: {error}") from error
        raise SourceError(
            f"the registry {artifact.base} is not reachable: {error}".splitlines()[0][:300],
            "Unreachable",
            "check the name of the registry, the network and HTTPS_PROXY",
        ) from error
