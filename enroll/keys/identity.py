"""The device's identity in a TLS context.

Responsible for handing OpenSSL the leaf with its chain and the key file. Not responsible for who may vouch
for the other side.
"""

from __future__ import annotations

import os
import ssl
from pathlib import Path

from enroll.errors import StorageError


def load(context: ssl.SSLContext, chain: bytes, key_file: Path, advice: str = "check both files") -> None:
    """Give a TLS context the device's leaf, its chain and its key.

    The chain goes through an anonymous file in memory: OpenSSL wants leaf and issuers in one file, and the
    folder keeps them in two.

    :param chain: PEM, leaf first, then its issuers.
    :param advice: what a person should check where OpenSSL refuses.
    :raises StorageError: OpenSSL cannot use the key, or it does not fit the leaf.
    """
    descriptor = os.memfd_create("chain", os.MFD_CLOEXEC)
    try:
        with os.fdopen(os.dup(descriptor), "wb") as stream:
            stream.write(chain)
        # Without a password OpenSSL would ask the terminal for that of an encrypted key.
        context.load_cert_chain(f"/proc/self/fd/{descriptor}", str(key_file), password=b"")
    except (ssl.SSLError, OSError) as e:
        raise StorageError(f"cannot use {key_file} with device.crt: {e}; {advice}") from e
    finally:
        os.close(descriptor)
