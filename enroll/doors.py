"""What a certificate opens: the broker, the tunnel, and the configuration of the update client.

Responsible for phases 2 and 3 of a run, each told in one event. Not responsible for trying again or for what is
done in which order (``enroll.plan``), nor for how a single attempt works (``enroll.mqtt``, ``enroll.tunnel``).
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Final

from enroll import events, tunnel
from enroll.backoff import Budget
from enroll.config import Settings
from enroll.disk import files
from enroll.disk.files import SECRET, Disk
from enroll.disk.folder import Folder
from enroll.disk.survey import Enrollment
from enroll.events import Event
from enroll.trust.clock import Clock
from enroll.tunnel import Machine

BROKER_SECONDS: Final = 10.0
HANDSHAKE_SECONDS: Final = 30.0
_LEAST_SECONDS: Final = 1.0


class Doors:
    """Phases 2 and 3."""

    def __init__(
        self, settings: Settings, machine: Machine, disk: Disk, clock: Clock, report: Callable[[Event], None]
    ) -> None:
        self._settings = settings
        self._machine = machine
        self._disk = disk
        self._clock = clock
        self._report = report
        self._attempts = 0

    def connect(
        self, enrollment: Enrollment, folder: Folder, context: Callable[[], ssl.SSLContext], budget: Budget
    ) -> None:
        """Make one attempt to be accepted by the broker; none named is fine.

        :raises BrokerError: not reachable, or not accepted.
        :raises StorageError: the key cannot be used for TLS.
        """
        broker = enrollment.record.mqtt
        if broker is None:
            self._report(events.mqtt(None, accepted=None, why="the bridge names no broker", attempts=0))
            return
        from enroll import mqtt  # noqa: PLC0415 - paho is slow to import, and many a run never needs it

        tls = context()
        enrollment.key.load_into(tls, enrollment.presented(), folder.device_key)
        self._attempts += 1
        telemetry = self._telemetry()
        seconds = max(_LEAST_SECONDS, min(BROKER_SECONDS, budget.remaining()))
        why = mqtt.connect_once(broker, enrollment.record.device_id, tls, seconds, telemetry)
        self._report(events.mqtt(broker, accepted=True, why=why, attempts=self._attempts))

    def stay(self, enrollment: Enrollment, folder: Folder, context: Callable[[], ssl.SSLContext]) -> None:
        """Stay connected until SIGTERM or SIGINT; for demonstrations.

        :raises StorageError: the key cannot be used for TLS.
        """
        broker = enrollment.record.mqtt
        if broker is None:
            return
        import signal  # noqa: PLC0415 - demonstrations only
        import threading  # noqa: PLC0415

        from enroll import mqtt  # noqa: PLC0415

        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        tls = context()
        enrollment.key.load_into(tls, enrollment.presented(), folder.device_key)
        device_id, telemetry = enrollment.record.device_id, self._telemetry()

        def tell(sentence: str) -> None:
            self._report(events.stay(broker, sentence))

        mqtt.stay(broker, device_id, tls, telemetry, stop, report=tell)

    def _telemetry(self) -> bytes | None:
        if not self._settings.telemetry:
            return None
        from enroll import inventory  # noqa: PLC0415 - only where asked for

        return inventory.telemetry()

    def gave_up(self, enrollment: Enrollment, why: str) -> None:
        """Tell that the broker did not accept the device within this run."""
        self._report(events.mqtt(enrollment.record.mqtt, accepted=False, why=why, attempts=self._attempts))

    def raise_tunnel(self, enrollment: Enrollment, folder: Folder, budget: Budget) -> None:
        """Bring the tunnel up if that is wanted and possible here; that it is not is a sentence, not an error."""
        watch = Budget.start(HANDSHAKE_SECONDS, self._clock.monotonic)
        outcome = tunnel.raise_tunnel(
            self._machine,
            self._settings,
            folder.wireguard_conf,
            enrollment.record,
            enrollment.wireguard,
            lambda: min(watch.remaining(), budget.remaining()),
            self._clock,
            self._disk,
        )
        handshake = outcome.handshake.isoformat() if outcome.handshake else None
        self._report(
            events.tunnel(self._settings.interface, raised=outcome.raised, why=outcome.why, handshake=handshake)
        )

    def write_updaters(self, enrollment: Enrollment, folder: Folder) -> None:
        """Write the update client's configuration where one is asked for.

        :raises StorageError: it cannot be written.
        """
        if self._settings.rauc_config is None and self._settings.swupdate_config is None:
            return
        from enroll import updaters  # noqa: PLC0415 - only where asked for

        for path, content in updaters.wanted(self._settings, enrollment.record, folder.path):
            files.write(self._disk, path, content, SECRET)
            self._report(events.updater(str(path)))
