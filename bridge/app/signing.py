"""The installation's signing key: made at the first start, recorded in the registry, compared at each start."""

from __future__ import annotations

from datetime import datetime

from bridge.adapters.signing import FileSigner
from bridge.config import Settings
from bridge.errors import Misconfigured
from bridge.model.signing import VerifyKey
from bridge.ports.registry import Entry, Registry, Transaction
from bridge.ports.runtime import Clock


async def signer_of(registry: Registry, settings: Settings, clock: Clock) -> FileSigner:
    """Return the signer; its public key is the newest that the registry names, or becomes its first.

    :raises Misconfigured: the file is missing or unreadable, or holds another key than the registry names.
    """
    known = await recorded(registry)
    signer = signer_in(settings, may_make=not known)
    now, key = clock.now(), signer.public_key

    def unit(tx: Transaction) -> VerifyKey:
        present = tx.signing_keys()  # another process may have been faster: its key stays
        if not present:
            trust(tx, key, "server", now)
        return present[-1] if present else key

    named = await registry.write(unit)
    if named != key:
        raise Misconfigured(
            f"the signing key {settings.signing_key_file} is {key.fingerprint}, but this registry's trail is signed"
            f" with {named.fingerprint}: put that file back; several servers need the same BRIDGE_SIGNING_KEY_FILE. If"
            " it was replaced on purpose, or is lost: iot-bridge audit trust-key"
        )
    return signer


async def recorded(registry: Registry) -> tuple[VerifyKey, ...]:
    """Return the keys that the registry names, oldest first.

    :raises Misconfigured: one was changed to something that is no key.
    """
    try:
        return await registry.read(lambda tx: tx.signing_keys())
    except ValueError as e:
        raise Misconfigured(f"a signing key in the registry was changed ({e}); run: iot-bridge audit verify") from e


def signer_in(settings: Settings, *, may_make: bool) -> FileSigner:
    """Return the signer of the configured file; the one in the data folder is made if it may be.

    :raises Misconfigured: it is missing or cannot be used.
    """
    path = settings.signing_key_file
    if path.exists() or settings.bridge_signing_key_file is not None:
        return FileSigner.read(path)
    if may_make:
        return FileSigner.make(path)
    raise Misconfigured(
        f"the signing key {path} is missing, and this registry has one already: put it back, or set"
        " BRIDGE_SIGNING_KEY_FILE as on the other servers; if it is lost: iot-bridge audit trust-key makes a new one"
    )


def trust(tx: Transaction, key: VerifyKey, actor: str, now: datetime) -> bool:
    """Add the key, with its entry in the trail; False if it is the newest already."""
    added = tx.trust_signing_key(key, now)
    if added:
        tx.audit(Entry(now, actor, "signing_key.trusted", None, {"sha256": key.fingerprint.hex}))
    return added
