"""The hot statements, as text: enroll, retry, webhook, claim. Prepared on the driver's own connection.

Measured: this text costs a tenth of the same statement through an expression language. Everything that runs once a
minute or by an operator's hand is written as expressions beside its operation instead.
Each statement is found by an index; a test asks both planners.
"""

from __future__ import annotations

from typing import Final

from bridge.store.rows import DEVICE_COLUMNS, ISSUANCE_COLUMNS, LINK_COLUMNS, WINDOW_COLUMNS
from bridge.store.statement import Statement


def _columns(names: tuple[str, ...], alias: str = "") -> str:
    prefix = f"{alias}." if alias else ""
    return ", ".join(prefix + name for name in names)


# -- facts -----------------------------------------------------------------------------------------------------
LOCK_DEVICE_FOLDED: Final = Statement.of("SELECT id FROM device WHERE id_folded = :folded {for_update}")
"""PostgreSQL only: whoever writes about a device holds its row first, so that later statements see a settled state."""

FACTS: Final = Statement.of(f"""
    SELECT {_columns(DEVICE_COLUMNS, "d")}, k.device, k.generation, {_columns(WINDOW_COLUMNS, "w")},
           l.address, l.device, l.public_key, g.device, g.generation
    FROM (SELECT 1 AS one) AS base
    LEFT JOIN device AS d ON d.id_folded = :folded
    LEFT JOIN device_key AS k ON k.spki = :spki
    LEFT JOIN reenroll_window AS w ON w.device = d.id AND w.closed_at IS NULL AND w.expires_at > :now
    LEFT JOIN lease AS l ON l.device = d.id
    LEFT JOIN wireguard_key AS g ON g.public_key = :wg_key AND (g.free_at IS NULL OR g.free_at > :now)
    """)  # noqa: S608 - names of our own columns
"""One row, always: every part that does not exist is NULL."""

ISSUANCES_OF_REQUEST: Final = Statement.of(f"""
    SELECT 'attempt', {_columns(ISSUANCE_COLUMNS)} FROM issuance WHERE device = :device AND state = 'intent'
    UNION ALL
    SELECT 'current', {_columns(ISSUANCE_COLUMNS)} FROM issuance WHERE device = :device AND state = 'current'
    UNION ALL
    SELECT 'stored', {_columns(ISSUANCE_COLUMNS)} FROM issuance WHERE spki = :spki AND taken
    """)  # noqa: S608 - names of our own columns

# -- an attempt is begun -----------------------------------------------------------------------------------------
RAISE_EPOCH: Final = Statement.of("""
    UPDATE device SET epoch = epoch + 1
    WHERE id_folded = :folded AND state <> 'tombstone' RETURNING id, state, epoch
    """)
RAISE_EPOCH_AND_DESCRIBE: Final = Statement.of("""
    UPDATE device SET epoch = epoch + 1, abandoned = FALSE, name = coalesce(name, :name), type = coalesce(type, :type),
                      inventory = coalesce(:inventory, inventory)
    WHERE id_folded = :folded AND state <> 'tombstone' RETURNING id, state, epoch
    """)
"""What an operator wrote stays; the device fills in what is empty."""

INSERT_DEVICE: Final = Statement.of("""
    INSERT INTO device (id_folded, id, state, epoch, generation, proven, registered, abandoned, name, type, inventory,
                        created_at)
    VALUES (:folded, :device, 'registered', 1, 0, :proven, FALSE, FALSE, :name, :type, :inventory, :now)
    """)
CLOSE_INTENTS: Final = Statement.of("""
    UPDATE issuance SET state = 'revoking' WHERE device = :device AND state = 'intent' RETURNING wg_public_key
    """)
TAKE_KEY: Final = Statement.of("""
    INSERT INTO device_key (spki, device) VALUES (:spki, :device)
    ON CONFLICT (spki) DO UPDATE SET device = excluded.device
    WHERE device_key.device = excluded.device AND device_key.generation IS NULL RETURNING device
    """)
TAKE_WIREGUARD_KEY: Final = Statement.of("""
    INSERT INTO wireguard_key (public_key, device, generation) VALUES (:wg_key, :device, :generation)
    ON CONFLICT (public_key) DO UPDATE SET device = excluded.device, generation = excluded.generation, free_at = NULL
    WHERE (wireguard_key.device = excluded.device AND wireguard_key.generation = excluded.generation)
       OR wireguard_key.free_at <= :now RETURNING device
    """)
DROP_WIREGUARD_KEY: Final = Statement.of("""
    DELETE FROM wireguard_key WHERE public_key = :wg_key AND device = :device AND free_at IS NULL
    AND NOT EXISTS (SELECT 1 FROM lease WHERE lease.public_key = :wg_key)
    AND NOT EXISTS (SELECT 1 FROM issuance WHERE issuance.device = :device AND issuance.state = 'intent'
                    AND issuance.wg_public_key = :wg_key)
    """)
"""A closed attempt's key was never a peer's: nothing has to be waited for."""

INSERT_INTENT: Final = Statement.of("""
    INSERT INTO issuance (serial, device, device_state, epoch, generation, kind, proven, spki, state, deadline, refused,
                          taken, wg_public_key, created_at)
    VALUES (:serial, :device, :device_state, :epoch, :generation, :kind, :proven, :spki, 'intent', :deadline, FALSE,
            FALSE, :wg_key, :now)
    """)

# -- an address is leased ----------------------------------------------------------------------------------------
OWN_LEASE: Final = Statement.of("SELECT address, device, public_key FROM lease WHERE device = :device")
LEASE_AGAIN: Final = Statement.of("""
    UPDATE lease SET device = :device, free_at = NULL, former_device = NULL
    WHERE address = (SELECT address FROM lease WHERE former_device = :device AND device IS NULL
                     ORDER BY free_at DESC, address DESC LIMIT 1)
    AND former_device = :device AND device IS NULL RETURNING address
    """)
"""The address it gave back last: an id that was forgotten and came again may have left several behind."""

LEASE_NEW: Final = Statement.of("""
    UPDATE lease_pool SET next_address = next_address + 1
    WHERE id = 1 AND next_address <= last_address RETURNING next_address - 1
    """)
INSERT_LEASE: Final = Statement.of("INSERT INTO lease (address, device) VALUES (:address, :device)")
LEASE_FREED: Final = Statement.of("""
    UPDATE lease SET device = :device, free_at = NULL, former_device = NULL
    WHERE address = (SELECT address FROM lease WHERE free_at <= :now ORDER BY free_at, address LIMIT 1 {skip_locked})
    AND device IS NULL RETURNING address
    """)

# -- a certificate is stored -------------------------------------------------------------------------------------
LOCK_DEVICE_OF_SERIAL: Final = Statement.of("""
    SELECT id FROM device WHERE id = (SELECT device FROM issuance WHERE serial = :serial) {for_update}
    """)
ATTEMPT: Final = Statement.of(f"""
    SELECT {_columns(ISSUANCE_COLUMNS, "i")}, i.proven, d.state, d.epoch, d.generation, d.first_connected_at
    FROM issuance AS i JOIN device AS d ON d.id = i.device WHERE i.serial = :serial
    """)  # noqa: S608 - names of our own columns
REPLACE_CURRENT: Final = Statement.of("""
    UPDATE issuance SET state = 'revoking' WHERE device = :device AND state IN ('pending', 'current', 'superseded')
    """)
REPLACE_PENDING: Final = Statement.of("""
    UPDATE issuance SET state = 'revoking' WHERE device = :device AND state = 'pending'
    """)
ACTIVATE_DEVICE: Final = Statement.of("""
    UPDATE device SET state = 'active', generation = :generation, proven = :proven, epoch = epoch + 1
    WHERE id = :device
    """)
REPLACE_SERIAL: Final = Statement.of("""
    UPDATE issuance SET serial = :leaf_serial, requested = :serial WHERE serial = :serial
    """)
STORE_LEAF: Final = Statement.of("""
    UPDATE issuance SET state = :state, taken = :taken, leaf = :leaf,
                        chain = :chain, leaf_sha256 = :leaf_sha256, not_before = :not_before, not_after = :not_after
    WHERE serial = :serial
    """)
INSERT_SURPLUS: Final = Statement.of("""
    INSERT INTO issuance (serial, device, device_state, epoch, generation, kind, proven, spki, state, deadline, refused,
                          taken, leaf, chain, leaf_sha256, not_before, not_after, created_at)
    VALUES (:serial, :device, :device_state, :epoch, :generation, :kind, :proven, :spki, 'revoking', :deadline, FALSE,
            FALSE, :leaf, :chain, :leaf_sha256, :not_before, :not_after, :now)
    ON CONFLICT (serial) DO NOTHING
    """)
"""A second leaf for one attempt: known, so that it can be revoked."""

SET_KEY_GENERATION: Final = Statement.of("UPDATE device_key SET generation = :generation WHERE spki = :spki")
SET_LEASE_KEY: Final = Statement.of("""
    UPDATE lease SET public_key = :wg_key WHERE device = :device RETURNING address, device, public_key
    """)
RETIRE_WIREGUARD_KEYS: Final = Statement.of("""
    UPDATE wireguard_key SET free_at = :free_at
    WHERE device = :device AND generation < :generation AND free_at IS NULL
    """)
USE_WINDOW: Final = Statement.of("""
    UPDATE reenroll_window SET closed_at = :now, outcome = 'used', used_by = :serial
    WHERE device = :device AND closed_at IS NULL
    """)
ANY_REVOKING: Final = Statement.of("""
    SELECT 1 FROM issuance WHERE device = :device AND state = 'revoking' LIMIT 1
    """)
REFUSE: Final = Statement.of("UPDATE issuance SET refused = TRUE WHERE serial = :serial AND state = 'intent'")
FORGET: Final = Statement.of("""
    DELETE FROM issuance WHERE serial = :serial AND state = 'intent' RETURNING device, wg_public_key
    """)

# -- a pending certificate is activated ---------------------------------------------------------------------------
ISSUANCES_OF_LEAF: Final = Statement.of(f"""
    SELECT 'leaf', {_columns(ISSUANCE_COLUMNS)} FROM issuance
    WHERE device = :device AND taken AND leaf_sha256 = :leaf_sha256
    UNION ALL
    SELECT 'attempt', {_columns(ISSUANCE_COLUMNS)} FROM issuance WHERE device = :device AND state = 'intent'
    """)  # noqa: S608 - names of our own columns
RAISE_EPOCH_FROM: Final = Statement.of("""
    UPDATE device SET epoch = epoch + 1
    WHERE id = :device AND state = 'active' AND epoch = :epoch RETURNING epoch
    """)
SUPERSEDE_CURRENT: Final = Statement.of("""
    UPDATE issuance SET state = 'superseded' WHERE device = :device AND state = 'current'
    """)
MAKE_CURRENT: Final = Statement.of("""
    UPDATE issuance SET state = 'current' WHERE serial = :serial AND device = :device AND state = 'pending'
    """)
RELEASE_SUPERSEDED: Final = Statement.of("""
    UPDATE issuance SET state = 'revoking' WHERE device = :device AND state = 'superseded'
    AND NOT EXISTS (SELECT 1 FROM link WHERE link.device = :device AND link.system = 'thingsboard'
                    AND link.settled_at IS NULL AND NOT link.foreign_object)
    RETURNING device_state
    """)
"""A replaced leaf may be revoked once the platform was seen to admit the new one, or has nothing of the device."""

# -- the sweep, every few seconds --------------------------------------------------------------------------------
LATE_INTENTS: Final = Statement.of("""
    SELECT device FROM issuance WHERE state = 'intent' AND (refused OR deadline <= :now) LIMIT :most
    """)
"""Walks the index of open attempts: there are as many as the CA answers in its deadline."""

STILL_LATE: Final = Statement.of("""
    SELECT 1 FROM issuance WHERE device = :device AND state = 'intent' AND (refused OR deadline <= :now)
    """)
PENDING_ENDED: Final = Statement.of("""
    SELECT device FROM issuance WHERE state = 'pending' AND not_after <= :now LIMIT :most
    """)
REPLACE_ENDED: Final = Statement.of("""
    UPDATE issuance SET state = 'revoking' WHERE device = :device AND state = 'pending' AND not_after <= :now
    """)
REPLACED: Final = Statement.of("""
    SELECT device FROM issuance WHERE state = 'superseded'
    AND NOT EXISTS (SELECT 1 FROM link WHERE link.device = issuance.device AND link.system = 'thingsboard'
                    AND link.settled_at IS NULL AND NOT link.foreign_object) LIMIT :most
    """)
"""Walks the index of replaced leaves. Each is released with the platform's settlement; the sweep finds those whose
platform was switched off meanwhile."""

LEFT_BEHIND: Final = Statement.of("""
    SELECT id FROM device WHERE abandoned
    AND NOT EXISTS (SELECT 1 FROM issuance WHERE issuance.device = device.id AND issuance.state = 'revoking')
    LIMIT :most
    """)
STILL_ABANDONED: Final = Statement.of("SELECT 1 FROM device WHERE id = :device AND abandoned")

# -- links -------------------------------------------------------------------------------------------------------
CALL_LINK: Final = Statement.of("""
    INSERT INTO link (device, system, device_state, wanted, foreign_object, next_at, hints, attempts)
    VALUES (:device, :system, :device_state, :wanted, FALSE, :next_at, 0, 0)
    ON CONFLICT (device, system) DO UPDATE
    SET wanted = excluded.wanted, settled_at = NULL, next_at = excluded.next_at, attempts = 0, last_error = NULL,
        hints = link.hints + CASE WHEN link.system = 'ca' THEN 1 ELSE 0 END
    """)
"""The link has something new to do. A claim held now ends in vain, since the epoch moved; but the ``ca`` link gets new
serials in the same epoch, and there one hint more makes it due again."""

_DUE = """
    SELECT device, system, wanted, next_at FROM link
    WHERE system = :system AND wanted = {} AND next_at <= :now AND (claimed_until IS NULL OR claimed_until <= :now)
    ORDER BY next_at LIMIT :most {{skip_locked}}
    """
CLAIM_DUE: Final = Statement.of(f"""
    WITH cuts AS ({_DUE.format("'absent'")}), others AS ({_DUE.format("'present'")}),
    due AS (SELECT device, system, wanted, next_at FROM cuts UNION ALL
            SELECT device, system, wanted, next_at FROM others ORDER BY wanted, next_at LIMIT :most)
    UPDATE link SET claimed_until = :until, claimed_by = :holder, attempts = attempts + 1
    WHERE (device, system) IN (SELECT device, system FROM due)
    RETURNING {_columns(LINK_COLUMNS)}, (SELECT epoch FROM device WHERE device.id = link.device)
    """)  # noqa: S608 - names of our own columns
CLAIM_HOLDS: Final = Statement.of("""
    SELECT 1 FROM link JOIN device ON device.id = link.device
    WHERE link.device = :device AND link.system = :system AND link.claimed_by = :holder AND link.claimed_until = :until
    AND link.claimed_until > :now AND device.epoch = :epoch
    """)
LOCK_DEVICE: Final = Statement.of("SELECT epoch FROM device WHERE id = :device {for_update}")
SETTLE: Final = Statement.of("""
    UPDATE link SET settled_at = :settled_at, next_at = CASE WHEN hints > :hints THEN :now ELSE :next_at END,
                    foreign_object = :foreign_object, last_error = :last_error,
                    external_id = coalesce(:external_id, external_id),
                    attempts = CASE WHEN :agreed THEN 0 ELSE attempts END,
                    hints = CASE WHEN :agreed THEN hints - :hints ELSE hints END,
                    claimed_by = NULL, claimed_until = NULL
    WHERE device = :device AND system = :system AND claimed_by = :holder AND claimed_until = :until
    AND claimed_until > :now AND (SELECT epoch FROM device WHERE id = :device) = :epoch
    """)
GIVE_BACK: Final = Statement.of("""
    UPDATE link SET claimed_by = NULL, claimed_until = NULL, next_at = :now,
                    external_id = coalesce(:external_id, external_id)
    WHERE device = :device AND system = :system AND claimed_by = :holder AND claimed_until = :until
    """)
LOOK_AGAIN: Final = Statement.of("""
    UPDATE link SET next_at = :now, hints = hints + 1, external_id = coalesce(:external_id, external_id)
    WHERE device = :device AND system = :system
    """)
"""After a lost claim: its calls may have landed late, so another holder's observation proves nothing."""

NEXT_UNCLAIMED: Final = Statement.of("""
    SELECT next_at FROM link WHERE system = :system AND wanted = :wanted AND next_at IS NOT NULL
    AND claimed_until IS NULL ORDER BY next_at LIMIT 1
    """)
NEXT_CLAIM_END: Final = Statement.of("""
    SELECT claimed_until FROM link WHERE system = :system AND claimed_until IS NOT NULL ORDER BY claimed_until LIMIT 1
    """)
KNOWN: Final = Statement.of("SELECT id, state FROM device WHERE id_folded = :folded")
HINT: Final = Statement.of("""
    UPDATE link SET hints = hints + 1, next_at = CASE WHEN next_at < :now THEN next_at ELSE :now END
    WHERE device = :device AND system IN ('hawkbit', 'thingsboard')
    """)
CONNECTED: Final = Statement.of("""
    UPDATE device SET first_connected_at = :at
    WHERE id_folded = :folded AND first_connected_at IS NULL AND state = 'active' RETURNING id
    """)

# -- audit -------------------------------------------------------------------------------------------------------
INSERT_AUDIT: Final = Statement.of("""
    INSERT INTO audit (at, actor, action, device, detail, request_id)
    VALUES (:at, :actor, :action, :device, :detail, :request_id)
    """)
TAKE_TURN: Final = Statement.of("""
    INSERT INTO audit_sequencer (id, holder, until, sequence, hash) VALUES (1, :holder, :until, 0, :genesis)
    ON CONFLICT (id) DO UPDATE SET holder = excluded.holder, until = excluded.until
    WHERE audit_sequencer.holder IS NULL OR audit_sequencer.holder = excluded.holder OR audit_sequencer.until <= :now
    RETURNING sequence, hash
    """)
GIVE_TURN_BACK: Final = Statement.of("""
    UPDATE audit_sequencer SET holder = NULL WHERE id = 1 AND holder = :holder
    """)
MOVE_END: Final = Statement.of("""
    UPDATE audit_sequencer SET sequence = :end, hash = :end_hash
    WHERE id = 1 AND holder = :holder AND until > :now AND sequence = :sequence AND hash = :hash
    """)
"""Locks the one row, so that seals follow each other, and lets only the one through that saw the trail's end."""

# -- single rows, written once or counted up ---------------------------------------------------------------------
PEERS: Final = Statement.of("""
    SELECT lease.device, lease.public_key, lease.address FROM lease
    JOIN link ON link.device = lease.device AND link.system = 'wireguard'
    WHERE lease.public_key IS NOT NULL AND link.wanted = 'present' ORDER BY lease.address
    """)
"""The whole fleet: the one statement here that is meant to read every row."""

PICTURE: Final = Statement.of(f"""
    SELECT {_columns(DEVICE_COLUMNS, "d")}, l.address, l.device, l.public_key
    FROM device AS d LEFT JOIN lease AS l ON l.device = d.id WHERE d.id_folded = :folded
    """)  # noqa: S608 - names of our own columns
ISSUANCES_OF_DEVICE: Final = Statement.of(f"""
    SELECT {_columns(ISSUANCE_COLUMNS)} FROM issuance WHERE device = :device ORDER BY created_at, epoch
    """)  # noqa: S608 - names of our own columns
RAISE_PEER_REVISION: Final = Statement.of("""
    INSERT INTO peer_revision (id, revision) VALUES (1, 1)
    ON CONFLICT (id) DO UPDATE SET revision = peer_revision.revision + 1 RETURNING revision
    """)
INSERT_INSTALLATION: Final = Statement.of("""
    INSERT INTO installation (id, installation_id, mode, tenant, root_sha256, created_at)
    VALUES (1, :installation_id, :mode, :tenant, :root_sha256, :now) ON CONFLICT (id) DO NOTHING RETURNING id
    """)
