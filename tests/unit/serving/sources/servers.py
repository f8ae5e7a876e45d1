"""Small real HTTP servers on loopback: the API of the Hugging Face Hub and that of a container registry."""

from __future__ import annotations

import functools
import hashlib
import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit


@dataclass
class Hub:
    """The API and the files of repositories.

    Attributes:
        files: content by repository, revision and file.
        gated: repositories that require the token.
        cut_after: the connection of a file's first download ends after so many bytes.
        downloads: (file, first byte) of every request for a file.
    """

    files: dict[str, dict[str, dict[str, bytes]]]
    gated: set[str] = field(default_factory=set)
    token: str = "hf_right"
    cut_after: dict[str, int] = field(default_factory=dict)
    corrupt: set[str] = field(default_factory=set)
    downloads: list[tuple[str, int]] = field(default_factory=list)
    url: str = ""
    hold: threading.Event | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        path = unquote(urlsplit(handler.path).path)
        listing = re.fullmatch(r"/api/models/([^/]+/[^/]+)/revision/(.+)", path)
        file = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        found = listing or file
        if found is None or found[1] not in self.files:
            return send(handler, 404, {"X-Error-Code": "RepoNotFound"}, b"{}")
        repository, revision = found[1], found[2]
        revisions = self.files[repository]
        commits = {listing_of(repository, content)["sha"]: content for content in revisions.values()}
        content = revisions.get(revision) or commits.get(revision)
        if content is None:
            return send(handler, 404, {"X-Error-Code": "RevisionNotFound"}, b"{}")
        if listing:
            return send(handler, 200, {}, json.dumps(listing_of(repository, content)).encode())
        if repository in self.gated and handler.headers.get("Authorization") != f"Bearer {self.token}":
            code = 403 if handler.headers.get("Authorization") else 401
            return send(handler, code, {"X-Error-Code": "GatedRepo"}, b"{}")
        return self._send_file(handler, file[3] if file else "", content)

    def _send_file(self, handler: BaseHTTPRequestHandler, name: str, content: dict[str, bytes]) -> None:
        data = content[name]
        if name in self.corrupt:
            data = bytes(len(data))
        first = range_of(handler)
        with self.lock:
            self.downloads.append((name, first))
            cut = self.cut_after.pop(name, None)
        if self.hold is not None:
            self.hold.wait(300)
        send(handler, 206 if first else 200, {}, data[first:], cut)


@functools.lru_cache(maxsize=64)
def checksum_of(data: bytes, algorithm: str = "sha256") -> str:
    return hashlib.new(algorithm, data).hexdigest()


def listing_of(repository: str, content: dict[str, bytes]) -> dict[str, Any]:
    """The answer of the hub: large files are in LFS, which has their SHA-256."""
    siblings = []
    for name, data in content.items():
        entry: dict[str, Any] = {"rfilename": name, "size": len(data), "blobId": checksum_of(data, "sha1")}
        if name.endswith((".gguf", ".safetensors")):
            entry["lfs"] = {"sha256": checksum_of(data), "size": len(data), "pointerSize": 134}
        siblings.append(entry)
    commit = checksum_of(repr([(name, checksum_of(content[name])) for name in sorted(content)]).encode(), "sha1")
    return {"id": repository, "modelId": repository, "sha": commit, "siblings": siblings, "tags": [], "private": False}


@dataclass
class Registry:
    """Manifests and blobs; anonymous clients get a token where `user` is empty."""

    manifests: dict[str, dict[str, Any]]
    blobs: dict[str, bytes]
    user: str = ""
    url: str = ""

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        path = urlsplit(handler.path).path
        if path == "/token":
            is_user = not self.user or "Basic" in handler.headers.get("Authorization", "")
            return send(handler, 200 if is_user else 401, {}, b'{"token": "abc"}')
        if handler.headers.get("Authorization") != "Bearer abc":
            challenge = f'Bearer realm="{self.url}/token",service="registry",scope="repository:x:pull"'
            return send(handler, 401, {"WWW-Authenticate": challenge}, b"{}")
        manifest = re.fullmatch(r"/v2/(.+)/manifests/(.+)", path)
        blob = re.fullmatch(r"/v2/(.+)/blobs/(.+)", path)
        if manifest and manifest[2] in self.manifests:
            return send(
                handler, 200, {"Docker-Content-Digest": "sha256:1"}, json.dumps(self.manifests[manifest[2]]).encode()
            )
        if blob and blob[2] in self.blobs:
            return send(handler, 200, {}, self.blobs[blob[2]])  # no ranges, as some registries
        return send(handler, 404, {}, b"{}")


def range_of(handler: BaseHTTPRequestHandler) -> int:
    match = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
    return int(match[1]) if match else 0


def send(
    handler: BaseHTTPRequestHandler, code: int, headers: dict[str, str], body: bytes, cut: int | None = None
) -> None:
    handler.send_response(code)
    for name, value in {**headers, "Content-Length": str(len(body))}.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(body if cut is None else body[:cut])
    if cut is not None:
        handler.wfile.flush()
        handler.close_connection = True
        handler.connection.shutdown(socket.SHUT_RDWR)


@contextmanager
def serving(what: Hub | Registry) -> Iterator[Any]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            try:
                what.answer(self)
            except (BrokenPipeError, ConnectionResetError, ValueError):
                self.close_connection = True

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    what.url = f"http://127.0.0.1:{server.server_port}"
    yield what
    server.shutdown()
    server.server_close()
