"""One replica in uvicorn, without Ray: `python -m bench.engines.alone CONFIG PORT`."""

from __future__ import annotations

import asyncio
import sys

import uvicorn

from tierserve_serving.config import PoolConfig
from tierserve_serving.engines import make_engine
from tierserve_serving.openai.app import Ingress
from tierserve_serving.replica.worker import Worker


async def main() -> None:
    config = PoolConfig.model_validate_json(sys.argv[1])
    engine = make_engine(config)
    await engine.load()
    application = Ingress(Worker(config, engine))
    await uvicorn.Server(
        uvicorn.Config(application, host="127.0.0.1", port=int(sys.argv[2]), log_level="warning", access_log=False)
    ).serve()
    engine.close()


if __name__ == "__main__":
    asyncio.run(main())
