"""Whether what the flag stands for holds today: every file of an enrollment, compared with its neighbours.

Responsible for the facts that ``iot-enroll status`` tells of an enrollment, or why they do not hold. Reads only.
Not responsible for a folder without a flag (``enroll.status.report``), which is told without loading cryptography.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

from enroll import schedule
from enroll.disk.files import read
from enroll.disk.folder import CA_CHAIN, DEVICE_CRT, DEVICE_KEY, FLAG, NEXT, ROOT_CRT, WIREGUARD_KEY, holds_key
from enroll.disk.survey import summary
from enroll.errors import EnrollError
from enroll.keys import KeyFormatError, WireGuardKey, kinds
from enroll.plan import Due
from enroll.record import Record, rfc3339
from enroll.trust import certificates, leaf, paths
from enroll.trust.clock import BUILT_AT, UNDATED, Belief
from enroll.trust.paths import Anchor


class _Missing(EnrollError):
    """A file is missing or does not hold; the text says which."""


def facts(folder: Path, record: Record, now: datetime) -> dict[str, Any]:
    """Return ``survey.summary()`` and the renewal.

    :param record: the flag's.
    :param now: what the clock shows, aware.
    :raises EnrollError: something is missing, damaged, another's, or out of its dates; the text says what.
    """
    parts = {name: _certificates(folder, name) for name in (DEVICE_CRT, CA_CHAIN, ROOT_CRT)}
    certificate, chain, roots = parts[DEVICE_CRT][0], parts[CA_CHAIN], parts[ROOT_CRT]
    if str(certificates.sha256(certificate)) != record.leaf_sha256:
        raise _Missing(f"{DEVICE_CRT} is not the certificate of the flag")
    floor = max(BUILT_AT, certificates.validity(certificate).begin, record.seen_at or BUILT_AT)
    belief = Belief(now, trusted=now >= floor, floor=floor)
    leaf.check(certificate, record.device_id, _own_spki(folder, leaf.spki_of(certificate)))
    paths.check_path(certificate, chain, Anchor(tuple(roots)), UNDATED)
    paths.check_dates(certificate, belief)
    _check_tunnel(folder, record)
    due = schedule.due(record, belief)
    renewal = rfc3339(schedule.renewal_time(record))
    told = summary(record, certificate, [*chain, roots[0]])
    return told | {
        "renewal": f"due since {renewal}" if due is Due.DUE else f"due {renewal}",
        "next": (folder / NEXT / FLAG).exists(),
    }


def _check_tunnel(folder: Path, record: Record) -> None:
    content = read(folder / WIREGUARD_KEY)
    if content is None:
        raise _Missing(f"{WIREGUARD_KEY} is missing")
    try:
        own = WireGuardKey.from_text(content)
    except KeyFormatError as e:
        raise _Missing(f"{WIREGUARD_KEY} {e}") from e
    if record.address is None:
        return
    if not any(holds_key(read(path) or b"", own) for path in folder.glob("*.conf")):
        raise _Missing("the tunnel's configuration is missing or not this device's")


def _own_spki(folder: Path, carried: str) -> str:
    """Return the key's digest, as far as it can be told without its hardware; else what the certificate carries."""
    content = read(folder / DEVICE_KEY)
    if content is None:
        raise _Missing(f"{DEVICE_KEY} is missing")
    if kinds.kind(content) in {"tpm", "pkcs11"}:
        return carried
    from enroll.keys.file import FileKeys  # noqa: PLC0415 - only where the key is in a file

    try:
        return FileKeys().read(content).spki_sha256
    except KeyFormatError as e:
        raise _Missing(f"{DEVICE_KEY} {e}") from e


def _certificates(folder: Path, name: str) -> list[Any]:
    content = read(folder / name)
    if content is None:
        raise _Missing(f"{name} is missing")
    try:
        return list(certificates.load_all(content))
    except ValueError as e:
        raise _Missing(f"{name} is damaged") from e
