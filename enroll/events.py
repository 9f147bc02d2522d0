"""What the agent tells: one event per step that really happened.

Responsible for the names and fields of the JSON Lines of ``iot-enroll run --json`` and for the sentence a
person reads in their place. Field names are stable; consumers ignore fields they do not know.

Not responsible for printing, and never holds a secret: no key, voucher, token or body is an argument here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from enroll.names import HostPort


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened."""

    name: str
    fields: Mapping[str, Any]
    sentence: str

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object: ``event`` first, then the fields."""
        return {"event": self.name, **self.fields}


def keys(device_id: str, folder: str, made: Sequence[str], spki_sha256: str) -> Event:
    """The device's keys are on disk, before anything was asked of anybody."""
    how = f"made {' and '.join(made)}" if made else "found the keys of an earlier run"
    fields = {"device_id": device_id, "folder": folder, "made": list(made), "spki_sha256": spki_sha256}
    return Event("keys", fields, f"{device_id}: {how} in {folder}")


def set_aside(name: str, kept_as: str, why: str) -> Event:
    """A damaged file was renamed, not deleted and not trusted."""
    return Event("set_aside", {"file": name, "kept_as": kept_as, "why": why}, f"{name} {why}; kept as {kept_as}")


def root(sha256: str, subject: str, source: str) -> Event:
    """The root certificate has the pinned digest."""
    fields = {"sha256": sha256, "subject": subject, "source": source}
    return Event("root", fields, f"root {subject} from the {source} has the pinned fingerprint {sha256}")


def issuer(sha256: str, subject: str) -> Event:
    """The second pin holds: from here on this issuing CA alone is the anchor."""
    fields = {"sha256": sha256, "subject": subject}
    return Event("issuer", fields, f"issuing CA {subject} has the pinned fingerprint {sha256}; it alone is trusted")


def waiting(what: str, why: str, code: str, seconds: float) -> Event:
    """An attempt failed and another one follows."""
    fields = {"what": what, "why": why, "code": code, "seconds": round(seconds, 3)}
    return Event("waiting", fields, f"{what}: {why} (again in {seconds:.1f} s)")


def enrolled(fields: Mapping[str, Any], *, new: bool) -> Event:
    """The flag is written. ``new`` is false where the folder held a valid enrollment already."""
    name = "enrolled" if new else "already_enrolled"
    chain = " <- ".join(fields["issuer_chain"])
    where = f", VPN address {fields['address']}" if fields["address"] else ", no VPN address"
    verb = "enrolled" if new else "already enrolled"
    who = f"{fields['device_id']} (generation {fields['generation']})"
    text = f"{verb} as {who} by {chain}, until {fields['not_after']}{where}"
    return Event(name, fields, text)


def taken_over(folder: str, spki_sha256: str, *, certificate: bool) -> Event:
    """An older client's files were taken over; ``certificate`` is false where only its keys could be."""
    what = "keys and certificate" if certificate else "keys (its certificate does not hold here)"
    fields = {"folder": folder, "spki_sha256": spki_sha256, "certificate": certificate}
    return Event("taken_over", fields, f"took over the {what} of an older client in {folder}")


def prepared(leaf_sha256: str, *, confirmed: bool) -> Event:
    """The next certificate lies beside the current one; ``confirmed`` once the bridge has made it the current one."""
    fields = {"leaf_sha256": leaf_sha256, "confirmed": confirmed}
    how = "is confirmed by the bridge" if confirmed else "is on disk, not yet confirmed"
    return Event("next", fields, f"the next certificate {how}")


def renewed(fields: Mapping[str, Any], replaces: str | None) -> Event:
    """The next pair took its place. ``replaces`` is the digest of the leaf before it, if this run still saw it."""
    return Event("renewed", {**fields, "replaces": replaces}, f"renewed, until {fields['not_after']}")


def refreshed(leaf_sha256: str) -> Event:
    """The bridge answered its stored answer again."""
    return Event("refreshed", {"leaf_sha256": leaf_sha256}, "the bridge answers the same certificate again")


def dropped(why: str, code: str) -> Event:
    """The next pair is useless by the bridge's word; the next run makes another one."""
    return Event("dropped", {"why": why, "code": code}, f"the next key is given up: {why}")


def wireguard_key_dropped(why: str, code: str) -> Event:
    """The WireGuard key is another identity's by the bridge's word; the next attempt brings another one."""
    fields = {"why": why, "code": code}
    return Event("wireguard_key_dropped", fields, f"the WireGuard key is given up: {why}")


def postponed(what: str, why: str, code: str) -> Event:
    """Something that is not vital failed, and is left to the next run."""
    return Event("postponed", {"what": what, "why": why, "code": code}, f"{what}: {why} (left to the next run)")


def clock(shown: datetime, believed: datetime, what: str) -> Event:
    """The system's clock is off; ``what`` says whether it was set."""
    fields = {"shown": shown.isoformat(), "believed": believed.isoformat(), "what": what}
    return Event("clock", fields, f"the clock shows {shown:%Y-%m-%dT%H:%M:%SZ}, and {what}")


def stay(broker: HostPort, sentence: str) -> Event:
    """What became of the connection that a demonstration keeps."""
    fields = {"host": broker.host, "port": broker.port, "why": sentence}
    return Event("stay", fields, f"MQTT {broker}: {sentence}")


def updater(path: str) -> Event:
    """An update client's configuration is as it should be."""
    return Event("updater", {"path": path}, f"{path} is written")


def invalid(why: str) -> Event:
    """There is a flag, but what it stands for does not hold; the same key is enrolled again."""
    return Event("invalid_enrollment", {"why": why}, f"the stored enrollment does not hold: {why}")


def mqtt(broker: HostPort | None, *, accepted: bool | None, why: str, attempts: int) -> Event:
    """Outcome of phase 2; ``accepted`` is null where the bridge names no broker."""
    fields = {
        "accepted": accepted,
        "host": broker.host if broker else None,
        "port": broker.port if broker else None,
        "why": why,
        "attempts": attempts,
    }
    return Event("mqtt", fields, f"MQTT {broker}: {why}" if broker else f"MQTT: {why}")


def tunnel(interface: str, *, raised: bool, why: str, handshake: str | None) -> Event:
    """Outcome of phase 3. ``handshake`` is the time of the handshake seen, RFC 3339, or null."""
    fields = {"raised": raised, "interface": interface, "why": why, "handshake": handshake}
    return Event("tunnel", fields, f"tunnel {interface}: {why}")


def stopped(exit_code: int, code: str, why: str) -> Event:
    """The run ended without success."""
    return Event("stopped", {"exit_code": exit_code, "code": code, "why": why}, why)


def done(exit_code: int) -> Event:
    """The run ended as it should."""
    return Event("done", {"exit_code": exit_code}, "done")
