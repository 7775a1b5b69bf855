"""The files that this process has open. Those of other tests in it may close meanwhile, so only one folder's count."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

LINKS = Path("/proc/self/fd")


def open_files(folder: Path) -> list[str]:
    """Return the open files below `folder`, those without a name too; none where the system does not tell."""
    names = []
    for link in LINKS.iterdir() if LINKS.exists() else ():
        with contextlib.suppress(OSError):  # it was closed meanwhile
            names.append(os.readlink(link))
    return [name for name in names if name.startswith(str(folder))]
