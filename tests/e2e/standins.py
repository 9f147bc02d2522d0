"""Stand-ins of all systems in this process, and a bridge that takes them for the real ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from bridge.app.http_clients import connect
from ca.bootstrap import context_for_root
from ca.standin import StandInCa, StandInSettings
from ca.standin.store import read_signed
from hawkbit.standin import EmbeddedHawkbit
from tests.e2e.background import Background
from tests.e2e.hostile_ca import HostileCa, hostile_ca
from tests.e2e.processes import Bridge
from thingsboard.standin import EmbeddedThingsBoard, Webhook

USER = ("tenant@example.com", "only for this test")
SECRET = "a secret of this test alone"


def now() -> datetime:
    return datetime.now(UTC)


@dataclass
class StandIns:
    """What the bridge believes to be a provider's servers. Each can be taken away and come back at its old ports."""

    folder: Path
    background: Background
    ca: StandInCa
    proxy: HostileCa
    certificate: tuple[Path, Path]
    hawkbit: EmbeddedHawkbit
    thingsboard: EmbeddedThingsBoard
    webhook: Webhook | None = None

    def variables(self) -> dict[str, str]:
        return {
            "STEP_CA_URL": self.proxy.url,
            "STEP_CA_FINGERPRINT": self.ca.fingerprint.value,
            "STEP_CA_PROVISIONER_NAME": self.ca.device_provisioner,
            "STEP_CA_PROVISIONER_PASSWORD": self.ca.password,
            "BRIDGE_TLS_CERT_FILE": str(self.certificate[0]),
            "BRIDGE_TLS_KEY_FILE": str(self.certificate[1]),
            "BRIDGE_PUBLIC_HOST": "localhost",
            "BRIDGE_ADMISSION": "open",
            "BRIDGE_WEBHOOK_SECRET": SECRET,
            "THINGSBOARD_URL": self.thingsboard.rest_url,
            "THINGSBOARD_USERNAME": USER[0],
            "THINGSBOARD_PASSWORD": USER[1],
            "THINGSBOARD_MQTT_HOST": self.thingsboard.mqtt_host,
            "THINGSBOARD_MQTT_PORT": str(self.thingsboard.mqtt_port),
            "HAWKBIT_URL": self.hawkbit.url,
            "HAWKBIT_USERNAME": USER[0],
            "HAWKBIT_PASSWORD": USER[1],
        }

    def signed(self) -> set[int]:
        """Every serial that the CA signed for a device: its own log, not what anybody was told."""
        names = {self.ca.device_provisioner}
        log = read_signed(self.folder / "ca" / "ca.sqlite")
        return {one.serial for one in log if one.provisioner in names}

    def point_webhook(self, bridge: Bridge, stack: ExitStack) -> None:
        http = self.background.enter(stack, connect(context_for_root(self.ca.anchor)))
        self.webhook = Webhook(f"{bridge.url}/webhooks/thingsboard", SECRET, http)
        self.thingsboard.point_webhook(self.webhook)

    def take_thingsboard_away(self) -> None:
        self.background.run(self.thingsboard.stop())

    def bring_thingsboard_back(self) -> None:
        rest, mqtt = int(self.thingsboard.rest_url.rpartition(":")[2]), self.thingsboard.mqtt_port
        self.thingsboard = new_thingsboard(self.folder, self.certificate, self.ca, rest, mqtt)
        self.background.run(self.thingsboard.start())
        self.thingsboard.point_webhook(self.webhook)

    def take_hawkbit_away(self) -> int:
        port = int(self.hawkbit.url.rpartition(":")[2])
        self.background.run(self.hawkbit.stop())
        return port

    def bring_hawkbit_back(self, port: int) -> None:
        self.hawkbit = EmbeddedHawkbit(self.folder / "hawkbit", *USER, port=port)
        self.background.run(self.hawkbit.start())

    def stop(self) -> None:
        self.background.run(self.thingsboard.stop())
        self.background.run(self.hawkbit.stop())


def new_thingsboard(
    folder: Path, certificate: tuple[Path, Path], ca: StandInCa, rest_port: int = 0, mqtt_port: int = 0
) -> EmbeddedThingsBoard:
    return EmbeddedThingsBoard(
        folder / "thingsboard",
        server_cert=certificate[0],
        server_key=certificate[1],
        client_ca=ca.anchor.root_pem,
        username=USER[0],
        password=USER[1],
        rest_port=rest_port,
        mqtt_port=mqtt_port,
    )


@contextmanager
def standins(folder: Path, background: Background) -> Iterator[StandIns]:
    with ExitStack() as stack:
        ca = StandInCa(StandInSettings(folder / "ca"), clock=now)
        background.enter(stack, ca)
        made = ca.issue_server_certificate()
        certificate = (folder / "server.crt", folder / "server.key")
        certificate[0].write_text(made.chain_pem)
        certificate[1].write_text(made.key_pem)
        proxy = background.enter(stack, hostile_ca(ca, folder))
        hawkbit = EmbeddedHawkbit(folder / "hawkbit", *USER)
        thingsboard = new_thingsboard(folder, certificate, ca)
        background.run(hawkbit.start())
        background.run(thingsboard.start())
        found = StandIns(folder, background, ca, proxy, certificate, hawkbit, thingsboard)
        stack.callback(found.stop)
        yield found
