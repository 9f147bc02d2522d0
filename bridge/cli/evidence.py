"""What an operator hands over to check a trail or a receipt with: public keys, signed heads, files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final, TextIO

from bridge.errors import BadRequest
from bridge.model.identity import Fingerprint
from bridge.model.signing import VerifyKey

_JWS: Final = re.compile(r"eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+", re.ASCII)


def keys_in(given: list[str]) -> tuple[tuple[VerifyKey, ...], tuple[Fingerprint, ...]]:
    """Return keys and fingerprints of ``--key``: a file with a public key in PEM, or a fingerprint.

    :raises BadRequest: it is neither.
    """
    keys: list[VerifyKey] = []
    pins: list[Fingerprint] = []
    for one in given:
        try:
            if Path(one).is_file():
                keys.append(VerifyKey.from_pem(Path(one).read_text(encoding="ascii")))
            else:
                pins.append(Fingerprint.parse(one))
        except (ValueError, OSError) as e:
            raise BadRequest(f"--key {one}: neither a file with an Ed25519 public key nor a fingerprint") from e
    return tuple(keys), tuple(pins)


def heads_in(given: str) -> list[str]:
    """Return every signed head in a text, or in the file of that name: the head alone, or a log.

    :raises BadRequest: there is none.
    """
    text = given
    try:
        if _JWS.fullmatch(given) is None:
            text = Path(given).read_text(encoding="utf-8", errors="replace")
    except (OSError, ValueError) as e:
        raise BadRequest(f"--head {given}: neither a signed head nor a file that can be read") from e
    found = _JWS.findall(text)
    if not found:
        raise BadRequest(f"--head {given}: no signed head is in it")
    return found


def opened(path: Path) -> TextIO:
    """Open an export; octets that are no text are kept, for the check to find.

    :raises BadRequest: it cannot be read.
    """
    try:
        return path.open(encoding="utf-8", errors="surrogateescape", newline="\n")
    except OSError as e:
        raise BadRequest(f"--file {path}: {e.strerror}") from e
