"""s3:// and gs:// against moto, a server with the API of S3.

Google's XML API is the same protocol, so the client for gs:// is tested against it as well; Google's own service is
not.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from moto.server import ThreadedMotoServer
from tests.unit.serving.sources.conftest import FOLDER, GGUF

from tierserve_serving.sources import cache as caching
from tierserve_serving.sources import model_folder, model_path
from tierserve_serving.sources.errors import SourceError


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    address = f"http://{host}:{port}"
    httpx.put(f"{address}/models").raise_for_status()
    objects = {"llama/q4.gguf": GGUF} | {f"tiny/{name}": data for name, data in FOLDER.items()}
    for name, data in objects.items():
        # The client for gs:// has no credentials for it.
        httpx.put(f"{address}/models/{name}", content=data, headers={"x-amz-acl": "public-read"}).raise_for_status()
    yield address
    server.stop()


@pytest.fixture(autouse=True)
def environment(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    account = {"gcs_base_url": url, "disable_oauth": True, "client_email": "", "private_key": "", "private_key_id": ""}
    values = {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_REGION": "us-east-1",
        "GOOGLE_SERVICE_ACCOUNT_KEY": json.dumps(account),
        "TIERSERVE_MODEL_CACHE": str(tmp_path / "cache"),
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(caching, "_RETRY_S", 0.01)


@pytest.mark.parametrize("scheme", ["s3", "gs"])
def test_a_file_or_the_only_one_of_a_path_is_downloaded(scheme: str) -> None:
    assert model_path(f"{scheme}://models/llama/q4.gguf").read_bytes() == GGUF
    assert model_path(f"{scheme}://models/llama").read_bytes() == GGUF


@pytest.mark.parametrize("scheme", ["s3", "gs"])
def test_a_folder_has_what_transformers_reads(scheme: str) -> None:
    folder = model_folder(f"{scheme}://models/tiny/")
    names = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    assert names == {"config.json", "tokenizer.json", "model.safetensors"}


def test_a_download_is_continued(tmp_path: Path) -> None:
    path = model_path("s3://models/llama/q4.gguf")
    folder = path.parent
    partial = folder.with_name(f"{folder.name}.partial")
    folder.rename(partial)
    (partial / "q4.gguf").rename(partial / "q4.gguf.incomplete")
    content = b"resumed!" + GGUF[8:1000]
    (partial / "q4.gguf.incomplete").write_bytes(content)
    assert model_path("s3://models/llama/q4.gguf").read_bytes() == content + GGUF[1000:], "the rest only"


@pytest.mark.parametrize("source", ["s3://models/none", "s3://none/llama", "s3://models/llama/q5.gguf"])
def test_what_is_missing_is_named(source: str) -> None:
    with pytest.raises(SourceError) as caught:
        model_path(source)
    assert caught.value.reason == "FileNotFound"


def test_a_store_that_is_not_reachable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(SourceError) as caught:
        model_path("s3://models/llama/q4.gguf")
    assert caught.value.reason == "Unreachable"
