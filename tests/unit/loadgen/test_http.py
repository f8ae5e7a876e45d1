"""The load generator against the habits of other servers: keys, compression, certificates, forms of events."""

from __future__ import annotations

import json
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import numpy as np
import pytest
from aiohttp import web

from tierserve.loadgen import ClosedLoop, LoadError, LoadPlan, Outcome, RequestLog, Step, Traffic, run_load
from tierserve.loadgen.units import header

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Serve = Callable[..., Awaitable[str]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """`await serve(answer, models=...)`: the address of a server with these handlers."""
    runners = []

    async def start(answer: Handler, models: Handler | None = None, tls: ssl.SSLContext | None = None) -> str:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", answer)
        app.router.add_get("/v1/models", models or names_m)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        runners.append(runner)
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        return f"{'https' if tls else 'http'}://localhost:{runner.addresses[0][1]}"

    yield start
    for runner in runners:
        await runner.cleanup()


async def names_m(_request: web.Request) -> web.Response:
    return web.json_response({"data": [{"id": "m"}]})


async def load(url: str, *, stream: bool = True, requests: int = 2, **more: object) -> RequestLog:
    traffic = Traffic("u", ClosedLoop(1, ramp_s=0.0), streamed=stream)
    plan = LoadPlan(url, (Step("s", 20.0, (traffic,)),), max_requests=requests, timeout_s=5.0, **more)  # type: ignore[arg-type]
    return (await run_load(plan)).samples


def chunk(**delta: str | None) -> str:
    return json.dumps({"choices": [{"index": 0, "delta": delta}]})


ROLE, WORDS = chunk(role="assistant", content=""), [chunk(content=word) for word in ("a", " b", ' "error" c')]
PLAIN = "".join(f"data: {data}\n\n" for data in (ROLE, *WORDS, "[DONE]"))
PRETTY = json.dumps(json.loads(WORDS[0]), indent=1).replace("\n", "\ndata: ")
STREAMS = {
    "as OpenAI": PLAIN,
    "CR LF": PLAIN.replace("\n", "\r\n"),
    "CR": PLAIN.replace("\n", "\r"),
    "no blank": PLAIN.replace("data: ", "data:"),
    "comments and fields": PLAIN.replace("data: ", ": keep-alive\nevent: message\nid: 1\nretry: 3\ndata: "),
    "data of several lines": PLAIN.replace(WORDS[0], PRETTY),
    "reasoning_content": PLAIN.replace(WORDS[0], chunk(reasoning_content="hm")),
    "reasoning": PLAIN.replace(WORDS[0], chunk(reasoning="hm", content=None)),
    "byte by byte": PLAIN,
    "byte by byte, CR LF": PLAIN.replace("\n", "\r\n"),
    "no empty line at the end": PLAIN.rstrip("\n"),
    "no end of line at the end": PLAIN.removesuffix("\n\n"),
    "null error": PLAIN.replace('{"choices"', '{"error": null, "choices"'),
}


@pytest.mark.parametrize(("name", "text"), STREAMS.items(), ids=STREAMS)
async def test_a_stream_in_any_form_of_the_standard_is_read(serve, name, text):
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)
        pieces = [text[i : i + 1] for i in range(len(text))] if name.startswith("byte") else [text]
        for piece in pieces:
            await response.write(piece.encode())
        return response

    samples = await load(await serve(answer))
    assert set(samples.outcome.tolist()) == {Outcome.OK}
    assert set(samples.tokens.tolist()) == {3}
    assert np.all(samples.first_token >= samples.start)


FAILED = {
    "as OpenAI": 'data: {"error": {"message": "m"}}\n\n',
    "as vLLM": 'data: {"object": "error", "message": "out of memory", "code": 500}\n\n',
    "no blank": 'data:{"error":{"message":"m"}}\n\n',
    "type of event": "event: error\ndata: out of memory\n\n",
    "CR LF": 'data: {"error": "m"}\r\n\r\n',
}


@pytest.mark.parametrize("event", FAILED.values(), ids=FAILED)
async def test_an_error_in_a_stream_counts_as_failed_though_done_follows(serve, event):
    async def answer(_request: web.Request) -> web.Response:
        return web.Response(text=f"data: {WORDS[0]}\n\n{event}data: [DONE]\n\n", content_type="text/event-stream")

    traffic = Traffic("u", ClosedLoop(1, ramp_s=0.0), streamed=True)
    result = await run_load(LoadPlan(await serve(answer), (Step("s", 20.0, (traffic,)),), max_requests=2))
    assert result.total().errors_by_kind == {"error_in_answer": 2}


async def test_a_stream_that_ends_without_done_is_truncated(serve):
    async def answer(_request: web.Request) -> web.Response:
        return web.Response(text=f"data: {chunk(content='[DONE]')}\n\n", content_type="text/event-stream")

    assert set((await load(await serve(answer))).outcome.tolist()) == {Outcome.TRUNCATED}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_compressed_answers_are_read(serve, stream, encoding):
    async def answer(request: web.Request) -> web.Response:
        asked = (await request.json()).get("stream", False)
        text = PLAIN if asked else json.dumps({"choices": [], "usage": {"completion_tokens": 3}})
        response = web.Response(text=text, content_type="text/event-stream" if asked else "application/json")
        response.enable_compression(web.ContentCoding[encoding], strategy=0)
        return response

    async def models(request: web.Request) -> web.Response:
        response = await names_m(request)
        response.enable_compression(web.ContentCoding[encoding])
        return response

    samples = await load(await serve(answer, models), stream=stream)
    assert set(samples.outcome.tolist()) == {Outcome.OK}
    assert set(samples.tokens.tolist()) == {3}


@pytest.mark.parametrize(
    ("body", "outcome"),
    [
        ('{"usage": {"completion_tokens": null}}', Outcome.OK),
        ('{"usage": null, "choices": null}', Outcome.OK),
        ('{"error": {"message": "m"}}', Outcome.HTTP_ERROR),
        ("[]", Outcome.CONNECTION),
        ("<html>", Outcome.CONNECTION),
        ("", Outcome.CONNECTION),
    ],
)
async def test_an_answer_of_another_shape_is_no_traceback(serve, body, outcome):
    async def answer(_request: web.Request) -> web.Response:
        return web.Response(text=body, content_type="application/json")

    samples = await load(await serve(answer), stream=False, requests=1)
    assert samples.outcome.tolist() == [outcome]


async def test_key_and_headers_go_with_every_request(serve):
    async def answer(request: web.Request) -> web.Response:
        return web.json_response({"choices": []}, status=status(request))

    async def models(request: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": "m"}]}, status=status(request))

    def status(request: web.Request) -> int:
        given = request.headers
        return 200 if (given.get("Authorization"), given.getall("X-Team", [])) == ("Bearer secret", ["blue"]) else 401

    url = await serve(answer, models)
    headers = (("Authorization", "Bearer secret"), ("x-team", "blue"))
    assert set((await load(url, stream=False, headers=headers)).outcome.tolist()) == {Outcome.OK}
    with pytest.raises(LoadError, match="401") as caught:
        await load(url)
    assert "--api-key" in caught.value.hint


@pytest.mark.parametrize("text", ["", "name", ": x", "na me: x", "X: a\r\nY: b", "X: ä"])
def test_what_is_no_header_is_refused(text):
    with pytest.raises(LoadError):
        header(text)
    assert header("X-A:  b: c ") == ("X-A", "b: c")


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with key.pem and cert.pem, a certificate that signs itself."""
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost", "-keyout", "key.pem", "-out", "cert.pem"],
        cwd=folder, check=True, capture_output=True,
    )  # fmt: skip
    return folder


async def test_a_certificate_of_an_own_ca_is_trusted_by_cacert_or_not_verified_by_insecure(serve, certificate):
    async def answer(_request: web.Request) -> web.Response:
        return web.json_response({"choices": []})

    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
    url = await serve(answer, tls=tls)
    for more in ({"cacert": certificate / "cert.pem"}, {"insecure": True}):
        assert set((await load(url, stream=False, **more)).outcome.tolist()) == {Outcome.OK}
    with pytest.raises(LoadError, match="certificate") as caught:
        await load(url)
    assert "--cacert" in caught.value.hint


@pytest.mark.parametrize("name", ["none.pem", "key.pem"])
async def test_a_file_without_certificates_is_named(certificate, name):
    with pytest.raises(LoadError, match=name):
        await load("https://localhost:9", cacert=certificate / name)


async def test_a_service_on_this_machine_is_never_reached_through_a_proxy(serve, monkeypatch):
    async def answer(_request: web.Request) -> web.Response:
        return web.json_response({"choices": []})

    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert set((await load(await serve(answer), stream=False)).outcome.tolist()) == {Outcome.OK}
