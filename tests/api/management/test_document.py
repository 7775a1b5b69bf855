"""The administration keeps to its document, whatever it is asked."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from app.api.docs.openapi import document
from tests.api.administration.offices import ADMIN, authenticate_closed, office_in_thread


@pytest.mark.slow
def test_the_administration_keeps_to_its_document_for_any_request(tmp_path: Path) -> None:
    """Schemathesis: boundaries, nonsense and plain requests at every endpoint, with an admin key, a wrong one and none.
    No 5xx, and every answer has a status, type, headers and body that the document names."""
    file = tmp_path / "openapi.json"
    file.write_text(json.dumps(document()))
    with office_in_thread(tmp_path) as office:
        office.use(office.administration(authenticate=authenticate_closed))
        command = [sys.executable, "-m", "schemathesis.cli", "run", str(file), "--url", office.url, "--no-color"]
        command += ["-H", f"Authorization: Bearer {ADMIN}", "--checks=all", "--exclude-checks=positive_data_acceptance"]
        command += ["--include-path-regex", "^/v1/gateway/", "--phases=examples,coverage,fuzzing", "--max-examples=20"]
        command += ["--continue-on-failure", "--generation-deterministic", "--request-timeout=20"]
        run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert run.returncode == 0, run.stdout[-20_000:] + run.stderr[-2_000:]
