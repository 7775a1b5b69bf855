"""The program's entry: `image-gateway`, and `python -m app`."""

from __future__ import annotations

import gc


def main() -> None:
    """Run the command line. Imported objects are exempt from garbage collection, since nearly all of them stay."""
    gc.disable()
    from app.commands.cli import main as run

    gc.freeze()
    gc.enable()
    run()


if __name__ == "__main__":
    main()
