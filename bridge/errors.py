"""The bridge's own error family: what can go wrong, by code, with what a person can do about it.

Responsible for the vocabulary only. :mod:`bridge.routes.problems` alone turns these errors into problem
documents, :mod:`bridge.cli.exits` alone into exit codes. The codes are the protocol's (WIRE, "Errors,
trust"); a test compares them with :class:`enroll.wire.Code`.

::

    BridgeError
    |-- Refused                 the caller's request was judged and turned down
    |   |-- BadInput            it can never be accepted as it is (422)
    |   |-- NotAdmitted, VoucherRequired, Retired
    |   `-- Conflict            it collides with what the registry knows (409)
    |-- Unavailable             nothing is wrong with the request; try again (503)
    `-- Misconfigured           an operator must change something before the server can work
"""

from __future__ import annotations

from typing import ClassVar


class BridgeError(Exception):
    """Base of everything the bridge raises on purpose. ``str(error)`` is safe to show to a caller."""

    code: ClassVar[str] = "internal"
    advice: ClassVar[str] = "Ask the operator to look at the bridge's log."
    """One sentence for people: what to do next."""


class Refused(BridgeError):
    """The request was judged and turned down; nothing was changed."""


class BadInput(Refused):
    """The request itself is wrong; sending it again cannot help."""


class BadDeviceId(BadInput):
    """The device id breaks the naming rule, or names a server."""

    code = "bad_device_id"
    advice = (
        "Use 1 to 64 letters, digits, dots, dashes or underscores, first and last a letter or digit;"
        " no IP address and no host name of a server."
    )


class BadCsr(BadInput):
    """The CSR is unreadable, weak, or asks for what a device must not have."""

    code = "bad_csr"
    advice = (
        "Make the CSR again: CN = device id, no SAN or exactly DNS:device-id; P-256, P-384, Ed25519 or RSA >= 2048."
    )


class BadWireGuardKey(BadInput):
    """The WireGuard public key is not one a peer can have."""

    code = "bad_wg_key"
    advice = "Send the output of `wg pubkey`: base64 of 32 bytes, of the device's own key."


class BadRequest(BadInput):
    """The body does not have the agreed shape."""

    code = "bad_request"
    advice = "Compare the body with the API document at /docs."


class BadProof(BadRequest):
    """The proof is malformed, speaks of something else, or is not by the key of the certificate that it names."""

    advice = "Sign a new proof for exactly this request, with the key of the certificate that it names."


class TooLarge(BadInput):
    """The body is larger than the bridge reads."""

    code = "too_large"
    advice = "Send at most 32 KiB; leave out inventory."


class Unauthorized(Refused):
    """The caller did not show the secret that this door wants."""

    code = "unauthorized"
    advice = "Compare the header X-Bridge-Webhook-Secret with BRIDGE_WEBHOOK_SECRET."


class NotFound(Refused):
    """There is nothing at this address."""

    code = "not_found"
    advice = "Compare the address with the API document at /docs."


class Retired(Refused):
    """The id was decommissioned and stays dead until an operator's word."""

    code = "retired"
    advice = "This device was decommissioned. Only an operator can bring it back: iot-bridge reinstate ID."


class NotAdmitted(Refused):
    """No admission policy lets this device in."""

    code = "not_admitted"
    advice = "Register the device first: iot-bridge device register ID. The device may keep asking."


class VoucherRequired(Refused):
    """The policy wants a voucher and none, or a wrong one, was sent."""

    code = "voucher_required"
    advice = "Give the device the one-time code of its registration (ENROLL_VOUCHER)."


class Conflict(Refused):
    """The request collides with what the registry knows."""


class IdSpelling(Conflict):
    """The id is known under another spelling."""

    code = "id_spelling"
    advice = "Ids are unique without regard to case: use the spelling that was registered first."


class KeyInUse(Conflict):
    """The public key belongs to another identity, or to an earlier one of this id."""

    code = "key_in_use"
    advice = "A key is one identity for ever: make a new key (iot-enroll reset) and ask the operator for a window."


class WireGuardKeyInUse(Conflict):
    """The WireGuard key is held, or was held until lately, by another identity."""

    code = "wg_key_in_use"
    advice = "Make a new WireGuard key and enroll again with the same device key."


class WireGuardKeyDiffers(Conflict):
    """The WireGuard key is not the one stored for this certificate."""

    code = "wg_key_differs"
    advice = "Send the WireGuard key of the first request, or none."


class IdentityExists(Conflict):
    """The id is active under another key."""

    code = "identity_exists"
    advice = "If the device lost its key, an operator opens a window: iot-bridge re-enroll ID."


class Expired(Conflict):
    """The stored certificate of this key has expired."""

    code = "expired"
    advice = "The certificate needs a renewal by its own key, or an operator's window: iot-bridge re-enroll ID."


class Superseded(Conflict):
    """The leaf named in the request is no longer, or never was, this device's."""

    code = "superseded"
    advice = "Use the current certificate, or enroll again in a window: iot-bridge re-enroll ID."


class AttemptOpen(Conflict):
    """A signing attempt of another key is under way for this id."""

    code = "in_progress"
    advice = "Try again after the time in Retry-After."

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        """Seconds until the attempt's deadline."""


class Unavailable(BridgeError):
    """Something the bridge needs does not answer now. Nothing was lost; the same request may be repeated."""

    retry_after: float = 5.0
    """Seconds after which it is worth trying again."""


class InProgress(Unavailable):
    """The same request is being worked on."""

    code = "in_progress"
    advice = "Try again after the time in Retry-After; the same key gets the same certificate."

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class CaUnreachable(Unavailable):
    """The CA did not answer."""

    code = "ca_unreachable"
    advice = "Operators: check STEP_CA_URL and the CA's health (iot-bridge config check)."

    def __init__(self, message: str, *, surely_not_sent: bool = False) -> None:
        super().__init__(message)
        self.surely_not_sent = surely_not_sent
        """True only if the request certainly never left this host."""


class CaRefused(Unavailable):
    """The CA answered no."""

    code = "ca_refused"
    advice = "Operators: check the provisioner and the CA's log (iot-bridge config check)."
    retry_after = 30.0


class CaBadAnswer(Unavailable):
    """The CA answered with something that must not reach a device."""

    code = "ca_bad_answer"
    advice = "Operators: look at the bridge's log; the certificate was not delivered and will be revoked."
    retry_after = 30.0


class PoolEmpty(Unavailable):
    """No VPN address is free."""

    code = "pool_empty"
    advice = "Operators: widen WG_SUBNET, or decommission devices and let their quarantine end."
    retry_after = 300.0


class StoreUnavailable(Unavailable):
    """The database did not take the write."""

    code = "store_unavailable"
    advice = "Operators: check disk space and the database (iot-bridge config check)."


class TooMany(Unavailable):
    """More requests are open than the bridge takes at once."""

    code = "too_many"
    advice = "Try again after the time in Retry-After."


class Misconfigured(BridgeError):
    """The server cannot start or go on as it is configured; the text names the variable and the mend."""

    code = "internal"
    advice = "Mend the configuration and run: iot-bridge config check."


class SystemFailed(BridgeError):
    """An outside system (not the CA's signing) failed an operation; the reconciler tries again."""

    advice = "The bridge tries again by itself; iot-bridge device show ID names the last error."


class ForeignObject(SystemFailed):
    """An object with the device's name exists that the bridge did not make; it is left alone."""

    advice = "Rename or delete the object in the outside system, or let an operator adopt it."
