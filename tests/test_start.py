"""A process that serves loads nothing that it does not use, and collects no garbage until it listens."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SERVE = """
import gc, sys, uvicorn
{look}
sys.argv[1:] = ["serve", "--port", "0"]
from app.__main__ import main
main()
"""
BEFORE_IT_LISTENS = "uvicorn.Server.run = lambda server: print(*sys.modules)"
WHEN_IT_LISTENS = """
async def look(server):
    print(gc.isenabled(), gc.get_freeze_count() > 50_000, gc.get_stats()[2]["collections"])
uvicorn.Server.main_loop = look
"""
UNUSED = (
    *("sqlalchemy", "alembic", "asyncpg", "tldextract", "prometheus_client", "PIL", "opentelemetry.sdk", "httpcore"),
    *("fastapi_offline", "app.sandbox", "app.imaging.pillow", "app.telemetry.traces"),
)


def serve(look: str, folder: Path) -> str:
    """Start a gateway that does no more than to `look`, and return what it prints."""
    command = [sys.executable, "-c", SERVE.format(look=look)]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder).stdout


def test_a_gateway_that_starts_loads_no_module_that_it_does_not_use(tmp_path: Path) -> None:
    loaded = serve(BEFORE_IT_LISTENS, tmp_path).split()
    assert {"app.process", "fastapi", "httpx", "structlog"} <= set(loaded)
    assert [name for name in UNUSED if name in loaded] == []


def test_a_gateway_that_listens_collects_only_what_came_later(tmp_path: Path) -> None:
    assert serve(WHEN_IT_LISTENS, tmp_path).splitlines()[-1] == "True True 0"
