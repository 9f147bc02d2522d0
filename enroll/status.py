"""What the folder says, for people and machines.

Responsible for ``iot-enroll status``: it reads the disk only, asks nobody, writes nothing, and tells no secret.
Not responsible for repairing anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from enroll import certificates, leaf, schedule, trust
from enroll.clock import BUILT_AT, UNDATED, Belief
from enroll.errors import EnrollError
from enroll.files import read
from enroll.folder import CA_CHAIN, DEVICE_CRT, DEVICE_KEY, FLAG, NEXT, ROOT_CRT, WIREGUARD_KEY
from enroll.keys import KeyFormatError, WireGuardKey
from enroll.plan import Due
from enroll.record import Record, RecordError, rfc3339
from enroll.survey import summary
from enroll.trust import Anchor


@dataclass(frozen=True, slots=True)
class Status:
    """The state on disk. ``enrolled`` means: the flag is there and every file it stands for holds today."""

    folder: str
    enrolled: bool
    why: str | None
    """What is missing or does not hold; ``None`` when enrolled."""
    facts: Mapping[str, Any]
    """``survey.summary()`` and the renewal; of a flag that does not hold, its id and generation; else empty."""

    def to_json(self) -> dict[str, Any]:
        """Return one flat JSON object."""
        return {"folder": self.folder, "enrolled": self.enrolled, "why": self.why, **self.facts}

    def sentences(self) -> list[str]:
        """Return the same for a person, a line each."""
        if not self.enrolled:
            return [f"not enrolled: {self.why} ({self.folder}). Next: iot-enroll run"]
        facts = self.facts
        broker = f"{facts['mqtt']['host']}:{facts['mqtt']['port']}" if facts["mqtt"] else "none"
        return [
            f"{facts['device_id']}: enrolled, generation {facts['generation']}, serial {facts['serial']}",
            f"certificate: {facts['not_before']} to {facts['not_after']}, renewal {facts['renewal']}",
            f"issued by: {' <- '.join(facts['issuer_chain'])}",
            f"VPN address: {facts['address'] or 'none'}",
            f"broker: {broker}",
        ]


class _Missing(EnrollError):
    """The folder holds no valid enrollment; the text says what is missing or does not hold."""


def inspect(folder: Path, now: datetime) -> Status:
    """Read the folder.

    :param now: aware; a certificate out of its dates is not a valid enrollment, unless the clock shows a time
        that cannot be.
    :raises StorageError: a file cannot be read.
    """
    record: Record | None = None
    try:
        record = _record(folder)
        facts = _facts(folder, record, now)
    except EnrollError as e:
        known = {"device_id": record.device_id, "generation": record.generation} if record else {}
        return Status(str(folder), enrolled=False, why=str(e), facts=known)
    return Status(str(folder), enrolled=True, why=None, facts=facts)


def _record(folder: Path) -> Record:
    content = read(folder / FLAG)
    if content is None:
        raise _Missing(f"there is no flag '{FLAG}'")
    try:
        return Record.from_json(content)
    except RecordError as e:
        raise _Missing(f"the flag '{FLAG}' {e}") from e


def _facts(folder: Path, record: Record, now: datetime) -> dict[str, Any]:
    parts = {name: _certificates(folder, name) for name in (DEVICE_CRT, CA_CHAIN, ROOT_CRT)}
    certificate, chain, roots = parts[DEVICE_CRT][0], parts[CA_CHAIN], parts[ROOT_CRT]
    if str(certificates.sha256(certificate)) != record.leaf_sha256:
        raise _Missing(f"{DEVICE_CRT} is not the certificate of the flag")
    floor = max(BUILT_AT, certificates.validity(certificate).begin, record.seen_at or BUILT_AT)
    belief = Belief(now, trusted=now >= floor, floor=floor)
    leaf.check(certificate, record.device_id, _own_spki(folder, leaf.spki_of(certificate)))
    trust.check_path(certificate, chain, Anchor(tuple(roots)), UNDATED)
    trust.check_dates(certificate, belief)
    _check_tunnel(folder, record)
    due = schedule.due(record, belief)
    renewal = rfc3339(schedule.renewal_time(record))
    facts = summary(record, certificate, [*chain, roots[0]])
    return facts | {
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
    lines = [line for path in folder.glob("*.conf") for line in (read(path) or b"").splitlines()]
    if f"PrivateKey = {own.private}".encode() not in lines:
        raise _Missing("the tunnel's configuration is missing or not this device's")


def _own_spki(folder: Path, carried: str) -> str:
    """Return the key's digest, as far as it can be told without its hardware; else what the certificate carries."""
    content = read(folder / DEVICE_KEY)
    if content is None:
        raise _Missing(f"{DEVICE_KEY} is missing")
    if b"TSS2 PRIVATE KEY" in content or b"pkcs11:" in content:
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
