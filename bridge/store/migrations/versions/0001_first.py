"""The first schema: devices, keys, issuances, leases, links, windows, installation, audit."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0001"
down_revision: Final = None
branch_labels: Final = None
depends_on: Final = None

STRING: Final = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
COUNTER: Final = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Create every table in an empty database."""
    _create_audit()
    _create_device()
    _create_installation()
    _create_issuer()
    _create_lease_pool()
    _create_peer_revision()
    _create_device_key()
    _create_lease()
    _create_link()
    _create_reenroll_window()
    _create_wireguard_key()
    _create_issuance()


def _partial(name: str, table: str, columns: list[str], where: str, *, unique: bool) -> None:
    condition = sa.text(where)
    op.create_index(name, table, columns, unique=unique, sqlite_where=condition, postgresql_where=condition)


def _create_audit() -> None:
    op.create_table(
        "audit",
        sa.Column("id", COUNTER, nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("actor", STRING, nullable=False),
        sa.Column("action", STRING, nullable=False),
        sa.Column("device", STRING, nullable=True),
        sa.Column("detail", STRING, nullable=False),
        sa.Column("request_id", STRING, nullable=True),
        sa.Column("sequence", sa.BigInteger(), nullable=True),
        sa.Column("hash", STRING, nullable=True),
        sa.CheckConstraint("(sequence IS NULL) = (hash IS NULL)", name=op.f("ck_audit_sealed")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit")),
        sa.UniqueConstraint("sequence", name=op.f("uq_audit_sequence")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_audit_device", "audit", ["device", "id"], unique=False)
    _partial("ix_audit_unsealed", "audit", ["id"], "sequence IS NULL", unique=False)


def _create_device() -> None:
    op.create_table(
        "device",
        sa.Column("id_folded", STRING, nullable=False),
        sa.Column("id", STRING, nullable=False),
        sa.Column("state", STRING, nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("proven", sa.Boolean(), nullable=False),
        sa.Column("registered", sa.Boolean(), nullable=False),
        sa.Column("abandoned", sa.Boolean(), nullable=False),
        sa.Column("name", STRING, nullable=True),
        sa.Column("type", STRING, nullable=True),
        sa.Column("key_digest", STRING, nullable=True),
        sa.Column("voucher_hash", STRING, nullable=True),
        sa.Column("admission_expires_at", sa.BigInteger(), nullable=True),
        sa.Column("inventory", STRING, nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("first_connected_at", sa.BigInteger(), nullable=True),
        sa.CheckConstraint("NOT abandoned OR state = 'registered'", name=op.f("ck_device_abandoned")),
        sa.CheckConstraint("state IN ('registered', 'active', 'tombstone')", name=op.f("ck_device_state")),
        sa.CheckConstraint("epoch >= 1 AND generation >= 0", name=op.f("ck_device_counters")),
        sa.CheckConstraint("id_folded = lower(id)", name=op.f("ck_device_folded")),
        sa.CheckConstraint("length(id) BETWEEN 1 AND 64", name=op.f("ck_device_length")),
        sa.PrimaryKeyConstraint("id_folded", name=op.f("pk_device")),
        sa.UniqueConstraint("id", "state", name=op.f("uq_device_id_state")),
        sa.UniqueConstraint("id", name=op.f("uq_device_id")),
    )
    _partial("ix_device_abandoned", "device", ["id"], "abandoned", unique=False)
    op.create_index("ix_device_state_id_folded", "device", ["state", "id_folded"], unique=False)


def _create_installation() -> None:
    op.create_table(
        "installation",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("installation_id", STRING, nullable=False),
        sa.Column("mode", STRING, nullable=False),
        sa.Column("tenant", STRING, nullable=False),
        sa.Column("root_sha256", STRING, nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_installation_single")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_installation")),
    )


def _create_issuer() -> None:
    op.create_table(
        "issuer",
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("sha256", STRING, nullable=False),
        sa.Column("added_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("position", name=op.f("pk_issuer")),
        sa.UniqueConstraint("sha256", name=op.f("uq_issuer_sha256")),
    )


def _create_lease_pool() -> None:
    op.create_table(
        "lease_pool",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("next_address", sa.BigInteger(), nullable=False),
        sa.Column("last_address", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_lease_pool_single")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_lease_pool")),
    )


def _create_peer_revision() -> None:
    op.create_table(
        "peer_revision",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_peer_revision_single")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_peer_revision")),
    )


def _create_device_key() -> None:
    op.create_table(
        "device_key",
        sa.Column("spki", STRING, nullable=False),
        sa.Column("device", STRING, nullable=False),
        sa.Column("generation", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(["device"], ["device.id"], name=op.f("fk_device_key_device")),
        sa.PrimaryKeyConstraint("spki", name=op.f("pk_device_key")),
    )
    op.create_index("ix_device_key_device", "device_key", ["device"], unique=False)


def _create_lease() -> None:
    op.create_table(
        "lease",
        sa.Column("address", COUNTER, autoincrement=False, nullable=False),
        sa.Column("device", STRING, nullable=True),
        sa.Column("public_key", STRING, nullable=True),
        sa.Column("free_at", sa.BigInteger(), nullable=True),
        sa.Column("former_device", STRING, nullable=True),
        sa.CheckConstraint("(device IS NULL) = (free_at IS NOT NULL)", name=op.f("ck_lease_held_or_free")),
        sa.CheckConstraint("device IS NOT NULL OR public_key IS NULL", name=op.f("ck_lease_key_of_holder")),
        sa.ForeignKeyConstraint(["device"], ["device.id"], name=op.f("fk_lease_device")),
        sa.PrimaryKeyConstraint("address", name=op.f("pk_lease")),
    )
    _partial("ix_lease_former_device", "lease", ["former_device"], "former_device IS NOT NULL", unique=False)
    _partial("ix_lease_free_at", "lease", ["free_at", "address"], "free_at IS NOT NULL", unique=False)
    _partial("uq_lease_device", "lease", ["device"], "device IS NOT NULL", unique=True)
    _partial("uq_lease_public_key", "lease", ["public_key"], "public_key IS NOT NULL", unique=True)


def _create_link() -> None:
    op.create_table(
        "link",
        sa.Column("device", STRING, nullable=False),
        sa.Column("system", STRING, nullable=False),
        sa.Column("device_state", STRING, nullable=False),
        sa.Column("wanted", STRING, nullable=False),
        sa.Column("settled_at", sa.BigInteger(), nullable=True),
        sa.Column("foreign_object", sa.Boolean(), nullable=False),
        sa.Column("next_at", sa.BigInteger(), nullable=True),
        sa.Column("hints", sa.Integer(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("last_error", STRING, nullable=True),
        sa.Column("external_id", STRING, nullable=True),
        sa.Column("claimed_by", STRING, nullable=True),
        sa.Column("claimed_until", sa.BigInteger(), nullable=True),
        sa.CheckConstraint("device_state <> 'tombstone' OR wanted = 'absent'", name=op.f("ck_link_tombstone")),
        sa.CheckConstraint("system <> 'ca' OR wanted = 'absent'", name=op.f("ck_link_ca")),
        sa.CheckConstraint("system IN ('ca', 'thingsboard', 'hawkbit', 'wireguard')", name=op.f("ck_link_system")),
        sa.CheckConstraint("wanted IN ('present', 'absent')", name=op.f("ck_link_wanted")),
        sa.CheckConstraint("(claimed_by IS NULL) = (claimed_until IS NULL)", name=op.f("ck_link_claim")),
        sa.ForeignKeyConstraint(
            ["device", "device_state"],
            ["device.id", "device.state"],
            name=op.f("fk_link_device_device_state"),
            onupdate="CASCADE",
        ),
        sa.PrimaryKeyConstraint("device", "system", name=op.f("pk_link")),
    )
    _partial("ix_link_claimed", "link", ["system", "claimed_until"], "claimed_until IS NOT NULL", unique=False)
    _partial("ix_link_due", "link", ["system", "wanted", "next_at"], "next_at IS NOT NULL", unique=False)


def _create_reenroll_window() -> None:
    op.create_table(
        "reenroll_window",
        sa.Column("id", COUNTER, nullable=False),
        sa.Column("device", STRING, nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("opened_by", STRING, nullable=False),
        sa.Column("opened_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("voucher_hash", STRING, nullable=True),
        sa.Column("key_digest", STRING, nullable=True),
        sa.Column("compromised", sa.Boolean(), nullable=False),
        sa.Column("closed_at", sa.BigInteger(), nullable=True),
        sa.Column("outcome", STRING, nullable=True),
        sa.Column("used_by", STRING, nullable=True),
        sa.CheckConstraint(
            "(used_by IS NOT NULL) = (outcome IS NOT NULL AND outcome = 'used')", name=op.f("ck_reenroll_window_used")
        ),
        sa.CheckConstraint(
            "outcome IN ('used', 'replaced', 'decommissioned')", name=op.f("ck_reenroll_window_outcome")
        ),
        sa.CheckConstraint("(closed_at IS NULL) = (outcome IS NULL)", name=op.f("ck_reenroll_window_closed")),
        sa.ForeignKeyConstraint(["device"], ["device.id"], name=op.f("fk_reenroll_window_device")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_reenroll_window")),
    )
    op.create_index("ix_reenroll_window_device", "reenroll_window", ["device"], unique=False)
    _partial("uq_reenroll_window_open", "reenroll_window", ["device"], "closed_at IS NULL", unique=True)


def _create_wireguard_key() -> None:
    op.create_table(
        "wireguard_key",
        sa.Column("public_key", STRING, nullable=False),
        sa.Column("device", STRING, nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("free_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["device"], ["device.id"], name=op.f("fk_wireguard_key_device")),
        sa.PrimaryKeyConstraint("public_key", name=op.f("pk_wireguard_key")),
    )
    op.create_index("ix_wireguard_key_device", "wireguard_key", ["device"], unique=False)


def _create_issuance() -> None:
    op.create_table(
        "issuance",
        sa.Column("serial", STRING, nullable=False),
        sa.Column("requested", STRING, nullable=True),
        sa.Column("device", STRING, nullable=False),
        sa.Column("device_state", STRING, nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("kind", STRING, nullable=False),
        sa.Column("proven", sa.Boolean(), nullable=False),
        sa.Column("spki", STRING, nullable=False),
        sa.Column("state", STRING, nullable=False),
        sa.Column("deadline", sa.BigInteger(), nullable=False),
        sa.Column("refused", sa.Boolean(), nullable=False),
        sa.Column("taken", sa.Boolean(), nullable=False),
        sa.Column("wg_public_key", STRING, nullable=True),
        sa.Column("leaf", STRING, nullable=True),
        sa.Column("chain", STRING, nullable=True),
        sa.Column("leaf_sha256", STRING, nullable=True),
        sa.Column("not_before", sa.BigInteger(), nullable=True),
        sa.Column("not_after", sa.BigInteger(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("revoked_at", sa.BigInteger(), nullable=True),
        sa.CheckConstraint(
            "device_state <> 'tombstone' OR state NOT IN ('intent', 'pending', 'current')",
            name=op.f("ck_issuance_tombstone"),
        ),
        sa.CheckConstraint("kind IN ('first', 'reenroll', 'renew')", name=op.f("ck_issuance_kind")),
        sa.CheckConstraint(
            "state IN ('intent', 'pending', 'current', 'superseded', 'revoking', 'revoked')",
            name=op.f("ck_issuance_state"),
        ),
        sa.CheckConstraint(
            "state NOT IN ('pending', 'current') OR device_state = 'active'", name=op.f("ck_issuance_active")
        ),
        sa.CheckConstraint(
            "state NOT IN ('pending', 'current', 'superseded') OR taken", name=op.f("ck_issuance_taken")
        ),
        sa.CheckConstraint(
            "(leaf IS NULL) = (leaf_sha256 IS NULL) AND (leaf IS NULL) = (chain IS NULL)"
            " AND (leaf IS NULL) = (not_before IS NULL) AND (leaf IS NULL) = (not_after IS NULL)"
            " AND (leaf IS NOT NULL OR NOT taken)",
            name=op.f("ck_issuance_leaf"),
        ),
        sa.ForeignKeyConstraint(
            ["device", "device_state"],
            ["device.id", "device.state"],
            name=op.f("fk_issuance_device_device_state"),
            onupdate="CASCADE",
        ),
        sa.ForeignKeyConstraint(["spki"], ["device_key.spki"], name=op.f("fk_issuance_spki")),
        sa.PrimaryKeyConstraint("serial", name=op.f("pk_issuance")),
    )
    _partial("ix_issuance_deadline", "issuance", ["deadline"], "state = 'intent'", unique=False)
    op.create_index("ix_issuance_device", "issuance", ["device", "created_at"], unique=False)
    _partial("ix_issuance_requested", "issuance", ["requested"], "requested IS NOT NULL", unique=False)
    op.create_index("ix_issuance_spki", "issuance", ["spki"], unique=False)
    _partial("uq_issuance_current", "issuance", ["device"], "state = 'current'", unique=True)
    _partial("uq_issuance_intent", "issuance", ["device"], "state = 'intent'", unique=True)
    _partial("uq_issuance_pending", "issuance", ["device"], "state = 'pending'", unique=True)
    _partial("uq_issuance_taken", "issuance", ["spki"], "taken", unique=True)
