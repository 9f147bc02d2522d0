"""What the agent does: one method per action of the plan, and one look at the disk.

Responsible for putting the parts together: what the bridge answered goes to the folder, what the folder holds goes
to the bridge and to the doors. Every method either does its work or raises.

Not responsible for which action comes next (``enroll.plan``), for trying again or for time (``enroll.agent``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from enroll import events
from enroll.answer import Identity
from enroll.backoff import Budget
from enroll.config import Settings
from enroll.dialogue import Dialogue, Inventory, Surroundings
from enroll.disk import files, succession, takeover
from enroll.disk.files import Disk
from enroll.disk.folder import FLAG, WIREGUARD_KEY, Folder
from enroll.disk.survey import Enrollment, Survey, Whose, survey
from enroll.doors import Doors
from enroll.errors import RefusedError, StorageError
from enroll.events import Event
from enroll.keys import KeyProvider
from enroll.names import IpAddress
from enroll.network.transport import Network
from enroll.plan import Action
from enroll.record import Record
from enroll.trust import certificates
from enroll.trust.clock import Clock, Timekeeper
from enroll.tunnel import Machine
from enroll.wire import CertificateState, Code

_LEAST_SECONDS: Final = 1.0
_CLOCK_OFF: Final = timedelta(seconds=30)
_JUST_AFTER: Final = timedelta(seconds=1)
_SEEN_STEP: Final = timedelta(days=1)
"""How much later a proven time must be before it is worth a write to flash."""

_USELESS: Final = frozenset({Code.KEY_IN_USE, Code.EXPIRED, Code.SUPERSEDED})
"""What the bridge says of a next key whose certificate can never be current: only then another key is made."""


@dataclass(frozen=True, slots=True)
class Runtime:
    """Everything the agent reaches the world by."""

    clock: Clock
    set_clock: Callable[[datetime], None]
    """Raises ``OSError`` where the process may not."""
    uniform: Callable[[float, float], float]
    disk: Disk
    machine: Machine
    network: Network
    provider: KeyProvider
    report: Callable[[Event], None]
    addresses: Callable[[str], Sequence[IpAddress]]
    """Looks a host up; an empty answer for one that has no address now."""
    inventory: Callable[[], Inventory]


class Deeds:
    """Everything that can be done in one folder."""

    def __init__(self, settings: Settings, runtime: Runtime, budget: Callable[[], Budget]) -> None:
        self._settings = settings
        self._world = runtime
        self._budget = budget
        self._id = settings.device_id.value
        self.folder = Folder(settings.folder, runtime.disk, runtime.provider, settings.interface)
        self.keeper = Timekeeper(runtime.clock)
        self.seen = Survey()
        self._replaced: str | None = None
        self._whose = Whose(self._id, settings.root_pins, settings.issuer_pins)
        inventory = runtime.inventory if settings.inventory else None
        self._dialogue = Dialogue(
            settings,
            Surroundings(runtime.network, self.keeper, self._patience, runtime.report, runtime.addresses, inventory),
        )
        self.doors = Doors(settings, runtime.machine, runtime.disk, runtime.clock, runtime.report)
        self._deeds: Mapping[Action, Callable[[], None]] = {
            Action.PROMOTE: self._promote,
            Action.SET_ASIDE: self._set_aside,
            Action.TAKE_OVER: self._take_over,
            Action.MAKE_KEYS: self._make_keys,
            Action.FETCH_ROOT: lambda: self._dialogue.establish(self.seen.roots),
            Action.ENROLL: self._enroll,
            Action.ACTIVATE: self._activate,
            Action.MAKE_NEXT_KEY: self._make_next_key,
            Action.RENEW: self._renew,
            Action.REFRESH: self._refresh,
            Action.CONNECT: lambda: self.doors.connect(
                self.enrolled(), self.folder, self._dialogue.context, self._budget()
            ),
            Action.RAISE_TUNNEL: lambda: self.doors.raise_tunnel(self.enrolled(), self.folder, self._budget()),
            Action.WRITE_UPDATERS: lambda: self.doors.write_updaters(self.enrolled(), self.folder),
        }

    def do(self, action: Action) -> None:
        """Do it.

        :raises EnrollError: it was not done; what was done of it before lies on disk.
        """
        self._deeds[action]()

    def look(self) -> Survey:
        """Read the state from disk; there is no second memory of it.

        :raises ConfigurationError: the folder belongs to another device.
        :raises StorageError: a file cannot be read.
        """
        self.seen = survey(self.folder, self._whose)
        if self.seen.enrollment is not None:
            self._dialogue.trust(self.seen.enrollment.anchor)
            self._learn_floor(self.seen.enrollment)
        return self.seen

    @property
    def anchored(self) -> bool:
        """Whether the pinned root is at hand."""
        return self._dialogue.anchored

    def enrolled(self) -> Enrollment:
        """Return the enrollment on disk.

        :raises StorageError: there is none any more.
        """
        if self.seen.enrollment is None:
            raise StorageError(f"the enrollment in {self.folder.path} is gone; check the medium")
        return self.seen.enrollment

    def stay(self) -> None:
        """Stay connected until SIGTERM or SIGINT; for demonstrations."""
        self.doors.stay(self.enrolled(), self.folder, self._dialogue.context)

    def _learn_floor(self, enrollment: Enrollment) -> None:
        for certificate in (enrollment.leaf, enrollment.chain[0]):
            self.keeper.raise_floor(certificates.validity(certificate).begin)
        if enrollment.record.seen_at is not None:
            self.keeper.raise_floor(enrollment.record.seen_at)

    def _patience(self, most: float) -> float:
        """Return the seconds one attempt may take: never more than the budget has, but always a little."""
        return max(_LEAST_SECONDS, min(most, self._budget().remaining()))

    # -- the disk -----------------------------------------------------------------------------------------
    def _set_aside(self) -> None:
        for entry in self.seen.unfit:
            kept = files.set_aside(self._world.disk, entry.path, self.keeper.belief().now)
            name = str(entry.path.relative_to(self.folder.path))
            self._world.report(events.set_aside(name, kept, entry.why))

    def _take_over(self) -> None:
        older = self.seen.older
        if older is None:
            raise StorageError("the older client's files are gone")
        now = self.keeper.belief().now
        held = takeover.take_over(self.folder, older, self._id, self._settings.root_pins, self._settings.bridge, now)
        self._world.report(events.taken_over(str(self.folder.path), older.key.spki_sha256, certificate=held))

    def _make_keys(self) -> None:
        made = self.folder.make_keys(self._id)
        self.look()
        if self.seen.keys is None:
            raise StorageError(f"{self.folder.path} does not give back what was written; check the medium")
        spki = self.seen.keys.device.spki_sha256
        self._world.report(events.keys(self._id, str(self.folder.path), made, spki))

    def _promote(self) -> None:
        succession.promote(self.folder)
        self.look()
        enrollment = self.seen.enrollment
        if enrollment is None:
            raise StorageError(f"{self.folder.path / FLAG} does not hold after the promotion; check the medium")
        self._world.report(events.renewed(enrollment.summary(), self._replaced))
        self._sweep_keys()

    def _sweep_keys(self) -> None:
        """Let go of keys in hardware that no file names any more; a token that does not answer is left as it is."""
        names = (self.folder.device_key, self.folder.next / self.folder.device_key.name)
        contents = [content for path in names if (content := files.read(path)) is not None]
        try:
            self._world.provider.sweep(contents)
        except StorageError as e:
            self._world.report(events.postponed("old keys", str(e), e.code))

    # -- the bridge ---------------------------------------------------------------------------------------
    def _enroll(self) -> None:
        keys = self.seen.keys
        if keys is None:
            raise StorageError("the keys are gone; check the medium")
        try:
            identity = self._dialogue.enroll(keys)
        except RefusedError as e:
            if e.problem is Code.WG_KEY_IN_USE:
                self._forget_wireguard(e)
            raise
        self.folder.store(identity, keys.wireguard)
        self._set_clock()
        self.look()
        if self.seen.enrollment is None:
            raise StorageError(f"{self.folder.path / FLAG} does not hold after writing; check the medium")
        self._world.report(events.enrolled(self.seen.enrollment.summary(), new=True))

    def _forget_wireguard(self, error: RefusedError) -> None:
        """Let go of a WireGuard key that can never be this identity's: the next attempt brings another one.

        It is that of an earlier identity, whose other key was lost, or another device's, from whose image this one
        was made. The configuration goes first: the key would be taken from it again.
        """
        self.folder.remove(self.folder.wireguard_conf.name)
        self.folder.remove(WIREGUARD_KEY)
        self._world.report(events.wireguard_key_dropped(str(error), error.code))

    def _refresh(self) -> None:
        self.folder.make_keys(self._id)
        self.look()
        enrollment, keys = self.enrolled(), self.seen.keys
        if keys is None:
            raise StorageError("the keys are gone; check the medium")
        try:
            identity = self._dialogue.refresh(enrollment, keys.csr)
        except RefusedError as e:
            if e.problem is Code.EXPIRED:
                # The bridge has a clock: by its word this time has passed, and a device without one may renew.
                self.keeper.raise_floor(enrollment.record.not_after + _JUST_AFTER)
            raise
        record = _refreshed(enrollment.record, identity)
        if record != enrollment.record or not self.seen.complete:
            self.folder.store(replace(identity, record=record), enrollment.wireguard)
        self._set_clock()
        self._world.report(events.refreshed(record.leaf_sha256))

    def _make_next_key(self) -> None:
        succession.make_key(self.folder, self._id)

    def _renew(self) -> None:
        enrollment, pair = self.enrolled(), self.seen.pair
        if pair.key is None or pair.csr is None:
            raise StorageError("the next key is gone; check the medium")
        try:
            identity = self._dialogue.renew(enrollment, pair.key, pair.csr)
        except RefusedError as e:
            self._drop_if_useless(e)
            raise
        self._store_next(identity)

    def _activate(self) -> None:
        pair, wireguard = self.seen.pair, self.seen.wireguard
        if pair.key is None or pair.record is None:
            raise StorageError("the next pair is gone; check the medium")
        if pair.csr is None:
            self._make_next_key()  # of the key that is there, only the request is made anew
        confirmed = succession.prepare(self.folder, pair.record)
        try:
            identity = self._dialogue.activate(
                pair.key, pair.record.leaf_sha256, wireguard.public if wireguard else None
            )
        except RefusedError as e:
            self._drop_if_useless(e)
            raise
        succession.confirm(self.folder)
        self._store_next(replace(identity, record=_refreshed(confirmed, identity)))

    def _store_next(self, identity: Identity) -> None:
        if self.seen.enrollment is not None:
            self._replaced = self.seen.enrollment.record.leaf_sha256
        succession.store(self.folder, identity, self.seen.wireguard)
        self._set_clock()
        confirmed = identity.record.state is CertificateState.CURRENT
        self._world.report(events.prepared(identity.record.leaf_sha256, confirmed=confirmed))

    def _drop_if_useless(self, error: RefusedError) -> None:
        if error.problem in _USELESS:
            succession.drop(self.folder)
            self._world.report(events.dropped(str(error), error.code))
            self._sweep_keys()

    def _set_clock(self) -> None:
        """Set the system's clock to the belief, where the device's owner wants it and it is off."""
        belief, shown = self.keeper.belief(), self._world.clock.now()
        if not self._settings.set_clock or not belief.trusted or abs(belief.now - shown) < _CLOCK_OFF:
            return
        try:
            self._world.set_clock(belief.now)
        except (OSError, OverflowError) as e:
            self._world.report(events.clock(shown, belief.now, f"cannot be set: {e}"))
        else:
            self._world.report(events.clock(shown, belief.now, "was set"))


def _refreshed(old: Record, identity: Identity) -> Record:
    """Return the record after the same answer came again: written only if it says anything new."""
    new = identity.record
    if new.leaf_sha256 != old.leaf_sha256:
        return new
    seen_at = old.seen_at
    if new.seen_at is not None and (seen_at is None or new.seen_at - seen_at >= _SEEN_STEP):
        seen_at = new.seen_at
    return replace(new, enrolled_at=old.enrolled_at, seen_at=seen_at)
