"""A chat service in a thread, for commands that run as processes of their own."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


class _Chat(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self):
        self.server.asked.set()
        self.rfile.read(int(self.headers["Content-Length"]))
        time.sleep(0.02)
        self._reply({"choices": [{"message": {"content": "Blue."}}], "usage": {"completion_tokens": 1}})

    def do_GET(self):
        self._reply({"data": [{"id": "assistant"}]})

    def _reply(self, document):
        payload = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(payload)))
        self.send_header("X-TierServe-Pool", "cloud-default")
        self.end_headers()
        self.wfile.write(payload)

    def log_message(self, *_args):
        pass


class _Server(ThreadingHTTPServer):
    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Chat)
        self.asked = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@pytest.fixture
def chat() -> Iterator[_Server]:
    """The service; `asked` is set by the first request."""
    server = _Server()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def chat_url(chat: _Server) -> str:
    return chat.url
