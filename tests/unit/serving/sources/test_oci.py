"""oci:// against a real HTTP server with the API of a registry."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path
from typing import Any

import pytest
from tests.unit.serving.sources.servers import Registry, serving

from tierserve_serving.sources import model_folder, model_path
from tierserve_serving.sources import oci as registry
from tierserve_serving.sources.errors import SourceError

GGUF = b"GGUF" + bytes(50_000)


def layer(data: bytes, media_type: str, **annotations: str) -> tuple[str, dict[str, Any]]:
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    return digest, {"mediaType": media_type, "digest": digest, "size": len(data), "annotations": annotations}


def tar(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return out.getvalue()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    readme, image = b"# about", tar({"models/config.json": b"{}", "config.json": b"{}", "a.safetensors": b"w"})
    weight = layer(GGUF, "application/vnd.cncf.model.weight.v1.raw", **{"org.cncf.model.filepath": "q4.gguf"})
    title = layer(GGUF, "application/octet-stream", **{"org.opencontainers.image.title": "q4.gguf"})
    about = layer(readme, "application/vnd.cncf.model.doc.v1.raw", **{"org.cncf.model.filepath": "README.md"})
    files = layer(image, "application/vnd.oci.image.layer.v1.tar+gzip")
    index = [{"digest": "modelpack", "platform": {"architecture": "s390x"}}, {"digest": "image"}]
    manifests = {
        "modelpack": {"layers": [weight[1], about[1]]},
        "oras": {"layers": [title[1]]},
        "image": {"layers": [files[1]]},
        "index": {"manifests": [{"digest": "modelpack", "platform": {"architecture": here()}}, *index]},
    }
    blobs = {weight[0]: GGUF, about[0]: readme, files[0]: image}
    monkeypatch.setenv("TIERSERVE_MODEL_CACHE", str(tmp_path / "cache"))
    with serving(Registry(manifests, blobs)) as found:
        yield found


def here() -> str:
    return str(
        registry._of_this_machine([{"platform": {"architecture": a}} for a in ("amd64", "arm64")])["platform"][
            "architecture"
        ]
    )


def source(server: Registry, tag: str) -> str:
    return f"oci://{server.url.removeprefix('http://')}/models/tiny:{tag}"


@pytest.mark.parametrize("tag", ["modelpack", "oras", "index"])
def test_a_layer_with_a_name_is_a_file(server: Registry, tag: str) -> None:
    assert model_path(source(server, tag)).read_bytes() == GGUF


def test_layers_that_are_archives_are_unpacked(server: Registry) -> None:
    folder = model_folder(source(server, "image"))
    assert (folder / "a.safetensors").read_bytes() == b"w"
    assert list(folder.glob("*.tar")) == []


def test_a_missing_tag_and_missing_credentials_are_named(server: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SourceError) as caught:
        model_path(source(server, "none"))
    assert caught.value.reason == "RevisionNotFound"
    server.user = "me"
    with pytest.raises(SourceError) as caught:
        model_path(source(server, "oras"))
    assert caught.value.reason == "TokenRequired"
    monkeypatch.setenv("OCI_USERNAME", "me")
    monkeypatch.setenv("OCI_PASSWORD", "secret")
    assert model_path(source(server, "oras")).read_bytes() == GGUF


def test_a_layer_other_than_its_digest_is_refused(server: Registry) -> None:
    server.blobs = {digest: bytes(len(data)) for digest, data in server.blobs.items()}
    with pytest.raises(SourceError) as caught:
        model_path(source(server, "oras"))
    assert caught.value.reason == "ChecksumMismatch"
