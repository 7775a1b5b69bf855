"""`python -m app.sandbox`: the simulated providers on a port of their own, until interrupted."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys

from app.sandbox.server import Sandbox


async def serve(host: str, port: int, seconds_per_drawing: float) -> None:
    async with Sandbox(host=host, port=port, seconds_per_drawing=seconds_per_drawing) as sandbox:
        sys.stdout.write(f"{sandbox.base_url}\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m app.sandbox", description="Serve the simulated providers.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8001)
    parser.add_argument("--seconds-per-drawing", type=float, default=0.0)
    arguments = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(arguments.host, arguments.port, arguments.seconds_per_drawing))


if __name__ == "__main__":
    main()
