"""What must be true of a device and its registry, in the moment of a death and when the device has come again."""

from __future__ import annotations

import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from enroll.keys import WireGuardKey
from enroll.record import Record
from enroll.wire import CertificateState
from tests.devicecrash.field import Device
from tests.devicecrash.orders import Report
from tests.devicecrash.scenarios import Scenario
from tests.e2e.processes import wait_for
from thingsboard.models import Leaf

SECRET: Final = {"device.key", "wg.key", "wg0.conf"}
PUBLIC: Final = {"device.csr", "device.crt", "ca-chain.crt", "root.crt", "enrolled"}
OLDER: Final = {"device-key.pem", "device.pem", "ca-chain.pem", "wg-private.key", ".enrolled"}
GIVEN_UP: Final = {"superseded", "revoking", "revoked"}


@dataclass(frozen=True, slots=True)
class Held:
    """A certificate whose key lies on the device too."""

    sha256: str
    credential: str
    """The name by which the broker admits it."""


def held(device: Device) -> tuple[Held, ...]:
    """Return every certificate that the device could show: in place, in ``next/``, or half promoted."""
    places = (device.case.certs, device.path("next"))
    keys = [key for place in places if (key := _key(place / "device.key")) is not None]
    leaves = [leaf for place in places if (leaf := _leaf(place / "device.crt")) is not None]
    return tuple(
        Held(leaf.fingerprint(hashes.SHA256()).hex(), Leaf.from_pem(pem).credentials_id)
        for leaf, pem in leaves
        if leaf.public_key() in [key.public_key() for key in keys]
    )


def _key(path: Path) -> ec.EllipticCurvePrivateKey | None:
    try:
        key = load_pem_private_key(path.read_bytes(), None)
    except (OSError, ValueError):
        return None
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key


def _leaf(path: Path) -> tuple[x509.Certificate, str] | None:
    try:
        content = path.read_bytes()
        return x509.load_pem_x509_certificate(content), content.decode()
    except (OSError, ValueError):
        return None


def examine_death(device: Device) -> None:
    """The registry's current certificate is always one whose key the device holds; the broker admits it, or will.

    From the activation on the bridge tells the broker by itself: the device has nothing to do for it.
    """
    current = device.field.registry.current(device.id)
    mine = {one.sha256: one.credential for one in held(device)}
    assert current in mine, "the registry's certificate is not the device's"
    admitted = device.field.tenant.eyes.thingsboard.credential
    if admitted(device.id) not in mine.values():
        wait_for(lambda: admitted(device.id) == mine[current])


def examine_end(device: Device, scenario: Scenario, report: Report, former: str | None) -> None:
    """The device has one identity, whole, and it is the registry's only live one."""
    assert report.code == 0, report
    leaf = the_files_fit(device, report)
    if scenario.same_leaf:
        assert leaf == former
    elif former is not None:
        assert leaf != former
    the_registry_agrees(device, scenario, leaf)
    the_folder_is_clean(device, scenario)


def the_files_fit(device: Device, report: Report) -> str:
    """Return the leaf's digest: of the key beside it, named by the flag, shown to the broker and accepted."""
    leaf, key = _leaf(device.path("device.crt")), _key(device.path("device.key"))
    assert leaf is not None
    assert key is not None
    assert leaf[0].public_key() == key.public_key()
    csr = x509.load_pem_x509_csr(device.path("device.csr").read_bytes())
    assert csr.public_key() == key.public_key()
    sha256 = leaf[0].fingerprint(hashes.SHA256()).hex()
    record = Record.from_json(device.path("enrolled").read_bytes())
    assert (record.leaf_sha256, record.state, record.complete) == (sha256, CertificateState.CURRENT, True)
    issuers = x509.load_pem_x509_certificates(device.path("ca-chain.crt").read_bytes())
    leaf[0].verify_directly_issued_by(issuers[0])
    root = x509.load_pem_x509_certificate(device.path("root.crt").read_bytes())
    assert root.fingerprint(hashes.SHA256()).hex() == device.order.pin
    wireguard = WireGuardKey.from_text(device.path("wg.key").read_bytes())
    assert f"PrivateKey = {wireguard.private}" in device.path("wg0.conf").read_text()
    accepted = report.event("mqtt")
    assert accepted is not None
    assert accepted["accepted"] is True, accepted
    identified = [one for one in report.events if one["event"] in {"enrolled", "already_enrolled", "renewed"}]
    assert not identified or identified[-1]["leaf_sha256"] == sha256  # the one that the broker was shown
    return sha256


def the_registry_agrees(device: Device, scenario: Scenario, leaf: str) -> None:
    registry = device.field.registry
    (row,) = registry.rows("SELECT state, generation FROM device WHERE id = ?", device.id)
    assert row == {"state": "active", "generation": scenario.generation}
    rows = registry.issuances(device.id)
    live = [one for one in rows if one["state"] not in GIVEN_UP]
    assert [(one["state"], one["leaf_sha256"]) for one in live] == [("current", leaf)], [r["state"] for r in rows]
    assert scenario.certificates is None or sum(one["taken"] for one in rows) == scenario.certificates == len(rows)
    public = WireGuardKey.from_text(device.path("wg.key").read_bytes()).public
    leases = registry.rows("SELECT public_key FROM lease WHERE device = ?", device.id)
    assert leases == [{"public_key": public}]


def the_folder_is_clean(device: Device, scenario: Scenario) -> None:
    """Nothing lies there that a later run could take for something, and no secret is readable by others."""
    found = {path.name: path for path in device.case.certs.iterdir() if path.is_file()}
    aside = {name for name in found if ".bad-" in name}
    rubbish = {name for name in found if name.startswith(".") and name.endswith(".new")}
    assert set(found) >= SECRET | PUBLIC
    assert set(found) - SECRET - PUBLIC - OLDER - aside - rubbish == set()
    assert scenario.sets_aside or not aside, f"a death made damage: {aside}"
    for name, path in found.items():
        mode = stat.S_IMODE(path.stat().st_mode)
        secret = any(one in name for one in SECRET) or name in OLDER
        assert mode == (0o600 if secret else 0o644), f"{name}: {mode:o}"
    left = {path.name for path in device.path("next").iterdir()} if device.path("next").exists() else set()
    assert {name for name in left if not (name.startswith(".") and name.endswith(".new"))} == set()
