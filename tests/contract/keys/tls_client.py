"""The agent's part of a TLS connection, as a process: prepared, key read, identity loaded, connected.

tls_client.py PORT ROOT CHAIN KEY_FILE
"""

import json
import os
import socket
import ssl
import sys
import time
from pathlib import Path

from enroll.config import load
from enroll.errors import EnrollError
from enroll.keys import prepare_process, provider


def connected(port: int, root: Path, chain: Path, key_file: Path) -> dict[str, object]:
    context = ssl.create_default_context(cafile=root)
    provider(load(os.environ)).read(key_file.read_bytes()).load_into(context, chain.read_bytes(), key_file)
    started = time.monotonic()
    with (
        socket.create_connection(("127.0.0.1", port)) as raw,
        context.wrap_socket(raw, server_hostname="localhost") as tls,
    ):
        name = tls.recv(100).decode()
        return {"name": name, "version": tls.version(), "seconds": time.monotonic() - started}


if __name__ == "__main__":
    prepare_process(load(os.environ), os.environ, sys.orig_argv)
    try:
        told = connected(int(sys.argv[1]), *map(Path, sys.argv[2:]))
    except (EnrollError, ssl.SSLError) as e:
        told = {"error": type(e).__name__, "why": str(e)}
    sys.stdout.write(json.dumps(told))
