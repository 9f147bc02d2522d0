"""Entry of ``iot-bridge``: says which extra is missing instead of ending in a traceback."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; exit 2 where only the device's part is installed."""
    try:
        from bridge.cli import run  # noqa: PLC0415 - only now, so that its absence can be explained
    except ModuleNotFoundError as e:
        if (e.name or "").partition(".")[0] == "bridge":
            raise
        sys.stderr.write(
            f"iot-bridge needs the server's packages ({e.name} is missing): pip install 'iot-bridge[bridge]'\n"
        )
        raise SystemExit(2) from e
    run()


if __name__ == "__main__":
    main()
