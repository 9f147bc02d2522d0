"""OpenSSL as the judge of a certificate: a TLS handshake in memory, so that no program has to be installed."""

from __future__ import annotations

import ssl
from functools import cache
from pathlib import Path

import trustme


class HandshakeFailed(Exception):
    """One side refused; the text is OpenSSL's reason."""


@cache
def _our_ca() -> trustme.CA:
    return trustme.CA()


def accepted_as_client(shown: Path, key: Path, cas: str) -> None:
    """Show a certificate (and what else is in its file) to a server that trusts `cas` (PEM) alone.

    Raises HandshakeFailed where that server, by OpenSSL's strict rules for clients, does not take it.
    """
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _our_ca().issue_cert("server.example.com").configure_cert(server)
    server.load_verify_locations(cadata=cas)
    server.verify_mode = ssl.CERT_REQUIRED
    server.verify_flags |= ssl.VerifyFlags.VERIFY_X509_STRICT
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _our_ca().configure_trust(client)
    client.load_cert_chain(shown, key)
    _handshake(server, client, "server.example.com")


def accepted_as_server(shown: Path, key: Path, cas: str, name: str) -> None:
    """Show a certificate as a server's to a client that trusts `cas` (PEM) alone, or raise HandshakeFailed."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(shown, key)
    _handshake(server, ssl.create_default_context(cadata=cas), name)


def _handshake(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> None:
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [
        client.wrap_bio(to_client, to_server, server_hostname=name),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    for _ in range(8):
        for side in list(sides):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLError as e:
                raise HandshakeFailed(str(e)) from e
            sides.remove(side)
    if sides:
        raise HandshakeFailed("the handshake did not end")
