"""The registry's tables, with the constraints that carry its invariants.

Responsible for what the database itself refuses: a live certificate or a wanted link of a tombstoned id, a second
open intent, pending or current certificate of a device, two owners of a key, an address leased twice. Not
responsible for the statements, nor for bringing an older database here (:mod:`bridge.store.migrate`).

Every time is an INTEGER: microseconds since 1970-01-01 UTC. It sorts and compares as the moments do in both
databases, and has no time zone that could be dropped. Addresses are INTEGERs too. Digests are lower-case hex,
serials decimal text (a serial has up to 159 bits). Text on PostgreSQL is collated "C": ids sort by their octets, and
``lower`` folds ASCII only, whatever the server's locale.
"""

from __future__ import annotations

from typing import ClassVar, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlmodel import Field, SQLModel

NAMING: Final = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}
STRING: Final = Text().with_variant(Text(collation="C"), "postgresql")
COUNTER: Final = BigInteger().with_variant(Integer, "sqlite")
"""SQLite numbers rows by itself only in a column that is called exactly INTEGER."""

DEVICE_WITH_STATE: Final = ["device.id", "device.state"]


def _partial(name: str, *columns: str, where: str, unique: bool = False) -> Index:
    """Return an index over the rows that satisfy ``where``, on both databases."""
    condition = text(where)
    return Index(name, *columns, unique=unique, sqlite_where=condition, postgresql_where=condition)


def _follows_the_device() -> ForeignKeyConstraint:
    """Return the foreign key that keeps ``device_state`` equal to the device's state."""
    return ForeignKeyConstraint(["device", "device_state"], DEVICE_WITH_STATE, onupdate="CASCADE")


class Row(SQLModel):
    """Base of the tables. Rows never leave the store; frozen records do."""

    metadata: ClassVar[MetaData] = MetaData(naming_convention=NAMING)


class DeviceRow(Row, table=True):
    """One row a device id."""

    __tablename__ = "device"
    __table_args__ = (
        CheckConstraint("id_folded = lower(id)", name="folded"),
        CheckConstraint("length(id) BETWEEN 1 AND 64", name="length"),
        CheckConstraint("state IN ('registered', 'active', 'tombstone')", name="state"),
        CheckConstraint("epoch >= 1 AND generation >= 0", name="counters"),
        CheckConstraint("NOT abandoned OR state = 'registered'", name="abandoned"),
        UniqueConstraint("id"),
        UniqueConstraint("id", "state"),
        Index("ix_device_state_id_folded", "state", "id_folded"),
        _partial("ix_device_abandoned", "id", where="abandoned"),
    )

    id_folded: str = Field(primary_key=True, sa_type=STRING)
    id: str = Field(sa_type=STRING)
    state: str = Field(sa_type=STRING)
    epoch: int = Field(sa_type=BigInteger)
    generation: int = Field(sa_type=Integer)
    proven: bool = Field(sa_type=Boolean)
    registered: bool = Field(sa_type=Boolean)
    abandoned: bool = Field(sa_type=Boolean)
    """Forgotten by an operator; the row waits until the last of its serials is revoked."""
    name: str | None = Field(default=None, sa_type=STRING)
    type: str | None = Field(default=None, sa_type=STRING)
    key_digest: str | None = Field(default=None, sa_type=STRING)
    voucher_hash: str | None = Field(default=None, sa_type=STRING)
    admission_expires_at: int | None = Field(default=None, sa_type=BigInteger)
    inventory: str | None = Field(default=None, sa_type=STRING)
    """JSON as the device sent it."""
    created_at: int = Field(sa_type=BigInteger)
    first_connected_at: int | None = Field(default=None, sa_type=BigInteger)


class DeviceKeyRow(Row, table=True):
    """The owner of a device's public key, for ever."""

    __tablename__ = "device_key"
    __table_args__ = (ForeignKeyConstraint(["device"], ["device.id"]), Index("ix_device_key_device", "device"))

    spki: str = Field(primary_key=True, sa_type=STRING)
    device: str = Field(sa_type=STRING)
    generation: int | None = Field(default=None, sa_type=Integer)
    """NULL until a certificate for the key was taken."""


class IssuanceRow(Row, table=True):
    """One signing attempt and, later, its certificate."""

    __tablename__ = "issuance"
    __table_args__ = (
        _follows_the_device(),
        ForeignKeyConstraint(["spki"], ["device_key.spki"]),
        CheckConstraint("kind IN ('first', 'reenroll', 'renew')", name="kind"),
        CheckConstraint("state IN ('intent', 'pending', 'current', 'superseded', 'revoking', 'revoked')", name="state"),
        CheckConstraint(
            "device_state <> 'tombstone' OR state NOT IN ('intent', 'pending', 'current')", name="tombstone"
        ),
        CheckConstraint("state NOT IN ('pending', 'current') OR device_state = 'active'", name="active"),
        CheckConstraint("state NOT IN ('pending', 'current', 'superseded') OR taken", name="taken"),
        CheckConstraint(
            "(leaf IS NULL) = (leaf_sha256 IS NULL) AND (leaf IS NULL) = (chain IS NULL)"
            " AND (leaf IS NULL) = (not_before IS NULL) AND (leaf IS NULL) = (not_after IS NULL)"
            " AND (leaf IS NOT NULL OR NOT taken)",
            name="leaf",
        ),
        _partial("uq_issuance_intent", "device", where="state = 'intent'", unique=True),
        _partial("uq_issuance_pending", "device", where="state = 'pending'", unique=True),
        _partial("uq_issuance_current", "device", where="state = 'current'", unique=True),
        _partial("uq_issuance_taken", "spki", where="taken", unique=True),
        _partial("ix_issuance_deadline", "deadline", where="state = 'intent'"),
        # The second condition keeps it from those who look for a device's pending one: to PostgreSQL's planner any
        # index over few rows is as good as another.
        _partial("ix_issuance_not_after", "not_after", where="state = 'pending' AND not_after IS NOT NULL"),
        _partial("ix_issuance_superseded", "device", where="state = 'superseded'"),
        _partial("ix_issuance_requested", "requested", where="requested IS NOT NULL"),
        Index("ix_issuance_device", "device", "created_at"),
        Index("ix_issuance_spki", "spki"),
    )

    serial: str = Field(primary_key=True, sa_type=STRING)
    requested: str | None = Field(default=None, sa_type=STRING)
    """The serial we chose, where the CA chose another (profile ``plain``)."""
    device: str = Field(sa_type=STRING)
    device_state: str = Field(sa_type=STRING)
    epoch: int = Field(sa_type=BigInteger)
    generation: int = Field(sa_type=Integer)
    kind: str = Field(sa_type=STRING)
    proven: bool = Field(sa_type=Boolean)
    spki: str = Field(sa_type=STRING)
    state: str = Field(sa_type=STRING)
    deadline: int = Field(sa_type=BigInteger)
    refused: bool = Field(sa_type=Boolean)
    taken: bool = Field(sa_type=Boolean)
    """The certificate became this key's one. A leaf that came too late is kept, but not taken: it does not use up
    the key."""
    wg_public_key: str | None = Field(default=None, sa_type=STRING)
    leaf: str | None = Field(default=None, sa_type=STRING)
    chain: str | None = Field(default=None, sa_type=STRING)
    leaf_sha256: str | None = Field(default=None, sa_type=STRING)
    not_before: int | None = Field(default=None, sa_type=BigInteger)
    not_after: int | None = Field(default=None, sa_type=BigInteger)
    created_at: int = Field(sa_type=BigInteger)
    revoked_at: int | None = Field(default=None, sa_type=BigInteger)


class WireGuardKeyRow(Row, table=True):
    """Who holds a WireGuard key: by an attempt, a lease, or (with ``free_at``) a quarantine."""

    __tablename__ = "wireguard_key"
    __table_args__ = (ForeignKeyConstraint(["device"], ["device.id"]), Index("ix_wireguard_key_device", "device"))

    public_key: str = Field(primary_key=True, sa_type=STRING)
    device: str = Field(sa_type=STRING)
    generation: int = Field(sa_type=Integer)
    free_at: int | None = Field(default=None, sa_type=BigInteger)
    """From then on another device may have it; NULL while it is held."""


class LeasePoolRow(Row, table=True):
    """The addresses that were never leased: from ``next_address`` to ``last_address``."""

    __tablename__ = "lease_pool"
    __table_args__ = (CheckConstraint("id = 1", name="single"),)

    id: int = Field(primary_key=True, sa_type=Integer, sa_column_kwargs={"autoincrement": False})
    next_address: int = Field(sa_type=BigInteger)
    last_address: int = Field(sa_type=BigInteger)


class LeaseRow(Row, table=True):
    """An address that was ever leased: held by a device, or free from a moment on."""

    __tablename__ = "lease"
    __table_args__ = (
        ForeignKeyConstraint(["device"], ["device.id"]),
        CheckConstraint("(device IS NULL) = (free_at IS NOT NULL)", name="held_or_free"),
        CheckConstraint("device IS NOT NULL OR public_key IS NULL", name="key_of_holder"),
        # Partial, and the search for a free one goes by free_at: over a full index on device SQLite's planner walks
        # every free lease.
        _partial("uq_lease_device", "device", where="device IS NOT NULL", unique=True),
        _partial("uq_lease_public_key", "public_key", where="public_key IS NOT NULL", unique=True),
        _partial("ix_lease_free_at", "free_at", "address", where="free_at IS NOT NULL"),
        _partial("ix_lease_former_device", "former_device", where="former_device IS NOT NULL"),
    )

    address: int = Field(primary_key=True, sa_type=COUNTER, sa_column_kwargs={"autoincrement": False})
    device: str | None = Field(default=None, sa_type=STRING)
    public_key: str | None = Field(default=None, sa_type=STRING)
    """The peer's; NULL until the first certificate is taken."""
    free_at: int | None = Field(default=None, sa_type=BigInteger)
    former_device: str | None = Field(default=None, sa_type=STRING)


class LinkRow(Row, table=True):
    """Where one device stands with one outside system."""

    __tablename__ = "link"
    __table_args__ = (
        _follows_the_device(),
        CheckConstraint("system IN ('ca', 'thingsboard', 'hawkbit', 'wireguard')", name="system"),
        CheckConstraint("wanted IN ('present', 'absent')", name="wanted"),
        CheckConstraint("device_state <> 'tombstone' OR wanted = 'absent'", name="tombstone"),
        CheckConstraint("system <> 'ca' OR wanted = 'absent'", name="ca"),
        CheckConstraint("(claimed_by IS NULL) = (claimed_until IS NULL)", name="claim"),
        _partial("ix_link_due", "system", "wanted", "next_at", where="next_at IS NOT NULL"),
        _partial("ix_link_claimed", "system", "claimed_until", where="claimed_until IS NOT NULL"),
    )

    device: str = Field(primary_key=True, sa_type=STRING)
    system: str = Field(primary_key=True, sa_type=STRING)
    device_state: str = Field(sa_type=STRING)
    wanted: str = Field(sa_type=STRING)
    settled_at: int | None = Field(default=None, sa_type=BigInteger)
    foreign_object: bool = Field(sa_type=Boolean)
    next_at: int | None = Field(default=None, sa_type=BigInteger)
    hints: int = Field(sa_type=Integer)
    attempts: int = Field(sa_type=Integer)
    last_error: str | None = Field(default=None, sa_type=STRING)
    external_id: str | None = Field(default=None, sa_type=STRING)
    claimed_by: str | None = Field(default=None, sa_type=STRING)
    claimed_until: int | None = Field(default=None, sa_type=BigInteger)


class WindowRow(Row, table=True):
    """An operator's leave for one new identity of an active device (``window`` is a word of SQL)."""

    __tablename__ = "reenroll_window"
    __table_args__ = (
        ForeignKeyConstraint(["device"], ["device.id"]),
        CheckConstraint("(closed_at IS NULL) = (outcome IS NULL)", name="closed"),
        CheckConstraint("outcome IN ('used', 'replaced', 'decommissioned')", name="outcome"),
        CheckConstraint("(used_by IS NOT NULL) = (outcome IS NOT NULL AND outcome = 'used')", name="used"),
        _partial("uq_reenroll_window_open", "device", where="closed_at IS NULL", unique=True),
        Index("ix_reenroll_window_device", "device"),
    )

    id: int | None = Field(default=None, primary_key=True, sa_type=COUNTER)
    device: str = Field(sa_type=STRING)
    generation: int = Field(sa_type=Integer)
    opened_by: str = Field(sa_type=STRING)
    opened_at: int = Field(sa_type=BigInteger)
    expires_at: int = Field(sa_type=BigInteger)
    voucher_hash: str | None = Field(default=None, sa_type=STRING)
    key_digest: str | None = Field(default=None, sa_type=STRING)
    compromised: bool = Field(sa_type=Boolean)
    closed_at: int | None = Field(default=None, sa_type=BigInteger)
    outcome: str | None = Field(default=None, sa_type=STRING)
    used_by: str | None = Field(default=None, sa_type=STRING)
    """Serial of the certificate that used it up."""


class InstallationRow(Row, table=True):
    """What this registry was made for."""

    __tablename__ = "installation"
    __table_args__ = (CheckConstraint("id = 1", name="single"),)

    id: int = Field(primary_key=True, sa_type=Integer, sa_column_kwargs={"autoincrement": False})
    installation_id: str = Field(sa_type=STRING)
    mode: str = Field(sa_type=STRING)
    tenant: str = Field(sa_type=STRING)
    root_sha256: str = Field(sa_type=STRING)
    created_at: int = Field(sa_type=BigInteger)


class IssuerRow(Row, table=True):
    """A trusted issuing CA; new leaves come from the one with the highest position."""

    __tablename__ = "issuer"
    __table_args__ = (UniqueConstraint("sha256"),)

    position: int = Field(primary_key=True, sa_type=Integer, sa_column_kwargs={"autoincrement": False})
    sha256: str = Field(sa_type=STRING)
    added_at: int = Field(sa_type=BigInteger)


class PeerRevisionRow(Row, table=True):
    """The number of the set of VPN peers that was read last."""

    __tablename__ = "peer_revision"
    __table_args__ = (CheckConstraint("id = 1", name="single"),)

    id: int = Field(primary_key=True, sa_type=Integer, sa_column_kwargs={"autoincrement": False})
    revision: int = Field(sa_type=BigInteger)


class AuditRow(Row, table=True):
    """One line of the audit trail; numbered and chained later, by its one sequencer."""

    __tablename__ = "audit"
    __table_args__ = (
        CheckConstraint("(sequence IS NULL) = (hash IS NULL)", name="sealed"),
        UniqueConstraint("sequence"),
        Index("ix_audit_device", "device", "id"),
        _partial("ix_audit_unsealed", "id", where="sequence IS NULL"),
        # A number is never given twice, also after the last line was cut off.
        {"sqlite_autoincrement": True},
    )

    id: int | None = Field(default=None, primary_key=True, sa_type=COUNTER)
    at: int = Field(sa_type=BigInteger)
    actor: str = Field(sa_type=STRING)
    action: str = Field(sa_type=STRING)
    device: str | None = Field(default=None, sa_type=STRING)
    detail: str = Field(sa_type=STRING)
    """JSON."""
    request_id: str | None = Field(default=None, sa_type=STRING)
    sequence: int | None = Field(default=None, sa_type=BigInteger)
    hash: str | None = Field(default=None, sa_type=STRING)


class AuditSequencerRow(Row, table=True):
    """Who may seal entries, and where the sealed trail ends."""

    __tablename__ = "audit_sequencer"
    __table_args__ = (CheckConstraint("id = 1", name="single"),)

    id: int = Field(primary_key=True, sa_type=Integer, sa_column_kwargs={"autoincrement": False})
    holder: str | None = Field(default=None, sa_type=STRING)
    until: int = Field(sa_type=BigInteger)
    sequence: int = Field(sa_type=BigInteger)
    hash: str = Field(sa_type=STRING)


class AuditHeadRow(Row, table=True):
    """A signed head: everything up to the entry with this number."""

    __tablename__ = "audit_head"

    sequence: int = Field(primary_key=True, sa_type=BigInteger, sa_column_kwargs={"autoincrement": False})
    jws: str = Field(sa_type=STRING)


class SigningKeyRow(Row, table=True):
    """A public key of the installation's; heads and receipts are signed with the one of the highest position."""

    __tablename__ = "signing_key"

    position: int = Field(primary_key=True, sa_type=Integer, sa_column_kwargs={"autoincrement": False})
    public_key: str = Field(sa_type=STRING)
    """PEM."""
    added_at: int = Field(sa_type=BigInteger)


METADATA: Final = Row.metadata


def _table(name: str) -> Table:
    return METADATA.tables[name]


DEVICE: Final = _table("device")
DEVICE_KEY: Final = _table("device_key")
ISSUANCE: Final = _table("issuance")
WIREGUARD_KEY: Final = _table("wireguard_key")
LEASE_POOL: Final = _table("lease_pool")
LEASE: Final = _table("lease")
LINK: Final = _table("link")
WINDOW: Final = _table("reenroll_window")
INSTALLATION: Final = _table("installation")
ISSUER: Final = _table("issuer")
PEER_REVISION: Final = _table("peer_revision")
AUDIT: Final = _table("audit")
AUDIT_SEQUENCER: Final = _table("audit_sequencer")
AUDIT_HEAD: Final = _table("audit_head")
SIGNING_KEY: Final = _table("signing_key")
