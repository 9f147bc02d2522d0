"""What the devices live through: what was before, the act in which they die, and how they come again."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from tests.devicecrash.field import RUNS, Device, Field
from tests.devicecrash.orders import Report
from tests.e2e.tenants import embedded_root

_OLDER: Final = {"device.key": "device-key.pem", "device.crt": "device.pem", "wg.key": "wg-private.key"}


@dataclass(frozen=True, slots=True)
class Scenario:
    """One story, told once without a death, and once for each death."""

    before: Callable[[Field], Device]
    act: str = "run"
    again: Callable[[Device, str | None], Report] | None = None
    """How the device comes again; given what was its leaf before the act."""
    generation: int = 1
    certificates: int | None = 1
    """How many the bridge ever gave to the device; ``None`` where that is a matter of moments."""
    same_leaf: bool = False
    """The device keeps the certificate that it had."""
    holds: bool = False
    """The device has an identity before, and at each moment must hold one that opens the door."""
    sets_aside: bool = False
    everywhere: bool = True
    """Whether it is killed also where an earlier death leaves the same; else only where something is new."""


def leaf_of(device: Device) -> str | None:
    """Return the digest of the leaf in place."""
    path = device.path("device.crt")
    try:
        return x509.load_pem_x509_certificate(path.read_bytes()).fingerprint(hashes.SHA256()).hex()
    except (OSError, ValueError):
        return None


def come_again(device: Device, former: str | None) -> Report:
    """Start the agent until it ends well; a run that ends otherwise must ask for the next one."""
    return _repeated(device, lambda: "run")


def renew_again(device: Device, former: str | None) -> Report:
    """The renewal is due for as long as the former leaf is in place."""
    return _repeated(device, lambda: "renew" if leaf_of(device) == former else "run")


def _repeated(device: Device, act: Callable[[], str]) -> Report:
    said = []
    for _ in range(RUNS):
        report = device.live(act())
        if report.code == 0:
            return report
        said.append(report)
        assert report.code == 75, said
    raise AssertionError(f"not done after {RUNS} runs: {[one.error for one in said]}")


def reset_again(device: Device, former: str | None) -> Report:
    """A reset cut short either has not happened, or it has: then the bridge wants an operator, who comes next."""
    report = device.live()
    if report.code == 0:
        assert leaf_of(device) == former
        (generation,) = device.field.registry.rows("SELECT generation FROM device WHERE id = ?", device.id)
        assert generation == {"generation": 1}
    else:
        assert (report.code, "identity_exists" in report.error) == (75, True), report
    assert device.live("reset").code == 0
    left = {path.name for path in device.case.certs.rglob("*") if path.is_file()}
    assert {name for name in left if ".bad-" not in name and not name.endswith(".new")} == set()
    device.field.registry.open_window(device.id)
    return come_again(device, former)


# -- what was before ---------------------------------------------------------------------------------------------
def nothing(field: Field) -> Device:
    """A device that was never started; its clock is wrong."""
    device = field.device(outfit=True)
    device.case.rtc.write_text("-3600")
    return device


def in_service(field: Field) -> Device:
    """A device in service, with a tunnel and an update client."""
    return enrolled(field, outfit=True)


def enrolled(field: Field, *, outfit: bool = False) -> Device:
    """A device that has an identity."""
    device = field.device(outfit=outfit)
    report = device.live(preparing=True)
    assert report.code == 0, report
    return device


def forgotten(field: Field) -> Device:
    """A device after `iot-enroll reset`, and an operator's window for it."""
    device = enrolled(field)
    assert device.live("reset").code == 0
    field.registry.open_window(device.id)
    return device


def older(field: Field) -> Device:
    """The folder of a client of complete-device-management, written from what the bridge gave."""
    device = enrolled(field)
    certs = device.case.certs
    kept = {older: (certs / ours).read_bytes() for ours, older in _OLDER.items()}
    chain = (certs / "ca-chain.crt").read_bytes() + embedded_root(field.bridge).encode()
    for path in certs.iterdir():
        path.unlink()
    for name, content in (kept | {"ca-chain.pem": chain, ".enrolled": b""}).items():
        path = certs / name
        path.write_bytes(content)
        path.chmod(0o600)
    return device


def without_tunnel_file(field: Field) -> Device:
    """A device that lost what the bridge's stored answer brings back."""
    device = enrolled(field)
    device.path("wg0.conf").unlink()
    return device


def damaged(field: Field) -> Device:
    """A device whose certificate is zeros and whose root is cut; the keys hold."""
    device = enrolled(field)
    path = device.path("device.crt")
    path.write_bytes(bytes(path.stat().st_size))
    path = device.path("root.crt")
    path.write_bytes(path.read_bytes()[:100])
    return device


def without_key(field: Field) -> Device:
    """A device whose key is zeros, and an operator's window for it."""
    device = enrolled(field)
    path = device.path("device.key")
    path.write_bytes(bytes(path.stat().st_size))
    field.registry.open_window(device.id)
    return device


def overtaken(field: Field) -> Device:
    """A device with a pending pair that the bridge has given up: a restored image of it has renewed since."""
    device = enrolled(field)
    image = {path: path.read_bytes() for path in device.case.certs.iterdir() if path.is_file()}
    died_before_activation(device)
    pending = {path: path.read_bytes() for path in device.path("next").iterdir()}
    for path in pending:
        path.unlink()
    died_before_activation(device)
    for path, content in (image | pending).items():
        path.write_bytes(content)
    return device


def died_before_activation(device: Device) -> None:
    """Let it renew, and die when the new pair is stored, before the bridge is told."""
    labels = [one.label for one in device.field.study("renewal").boundaries]
    order = replace(device.order, act="renew", preparing=True, die_at=labels.index("network.activate"))
    assert device.field.devices.run(order) == -signal.SIGKILL


SCENARIOS: Final[Mapping[str, Scenario]] = {
    "first enrollment": Scenario(nothing),
    "renewal": Scenario(in_service, "renew", renew_again, certificates=2, holds=True),
    "re-enrollment": Scenario(forgotten, generation=2, certificates=2),
    "takeover": Scenario(older, same_leaf=True, everywhere=False),
    "reset": Scenario(enrolled, "reset", reset_again, generation=2, certificates=2, sets_aside=True, everywhere=False),
    "refresh": Scenario(without_tunnel_file, same_leaf=True, holds=True, everywhere=False),
    "damaged enrollment": Scenario(damaged, same_leaf=True, sets_aside=True, everywhere=False),
    "damaged key": Scenario(without_key, generation=2, certificates=2, sets_aside=True, everywhere=False),
    "overtaken renewal": Scenario(overtaken, "renew", renew_again, certificates=4, holds=True, everywhere=False),
}
