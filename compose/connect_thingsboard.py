r"""Install the rule chain that tells the bridge of connects in a ThingsBoard; a second run changes nothing.

    .venv/bin/python compose/connect_thingsboard.py --thingsboard http://127.0.0.1:8080 \
      --webhook https://bridge.example.com:8443/webhooks/thingsboard --ca compose/tenant/step-ca/certs/root.crt

Reads THINGSBOARD_USERNAME, THINGSBOARD_PASSWORD and BRIDGE_WEBHOOK_SECRET, or the last two from `--secrets FOLDER`.
"""

import argparse
import asyncio
import os
import sys
from pathlib import Path

import httpx

from thingsboard.client import ThingsBoardClient
from thingsboard.errors import PlatformError
from thingsboard.rule_chain import Endpoint, Installed, install

_SECONDS = 30.0


async def connect(url: str, username: str, password: str, endpoint: Endpoint) -> Installed:
    """Install the chain.

    :raises PlatformError: ThingsBoard refused, or stored something else than it was sent.
    """
    async with httpx.AsyncClient(timeout=_SECONDS) as http:
        return await install(ThingsBoardClient(http, url, username, password), endpoint)


def main() -> int:
    """Run it; return the exit code."""
    parser = argparse.ArgumentParser(description="Install the connect event's rule chain.")
    parser.add_argument("--thingsboard", required=True, metavar="URL")
    parser.add_argument("--webhook", required=True, metavar="URL")
    parser.add_argument("--ca", type=Path, help="root that the bridge's HTTPS hangs on, PEM")
    parser.add_argument("--secrets", type=Path, help="folder with thingsboard_password and webhook_secret")
    given = parser.parse_args()

    def secret(variable: str, name: str) -> str:
        return (given.secrets / name).read_text().strip() if given.secrets else os.environ.get(variable, "")

    endpoint = Endpoint(
        given.webhook,
        secret("BRIDGE_WEBHOOK_SECRET", "webhook_secret"),
        given.ca.read_text() if given.ca else None,
    )
    username = os.environ.get("THINGSBOARD_USERNAME", "tenant@thingsboard.org")
    password = secret("THINGSBOARD_PASSWORD", "thingsboard_password")
    try:
        done = asyncio.run(connect(given.thingsboard, username, password, endpoint))
    except PlatformError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"rule chain {done.chain_id}: {'written' if done.chain_changed else 'as it should be'}")
    print(f"root chain: {'attached now' if done.attached else 'attached already'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
