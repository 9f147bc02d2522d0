"""The admission policies: pure functions of a candidate.

A registration may ask for a voucher, for one certain key, or for neither; what it asks for is wanted in full. A device
let in by its bare id alone is marked unproven.
"""

from __future__ import annotations

import hmac
from datetime import datetime

from bridge.errors import NotAdmitted, VoucherRequired
from bridge.model.facts import EnrollmentRequest
from bridge.model.identity import Fingerprint
from bridge.model.records import DeviceState
from bridge.ports.admission import Admitted, Candidate


class RegisteredOnly:
    """Only ids that an operator registered, or opened a window for, come in (the embedded default)."""

    name = "registered"

    def admit(self, candidate: Candidate) -> Admitted:
        """Admit a registered id that shows what its registration asks for.

        :raises NotAdmitted: it is not registered, its registration ended, or its key is not the one expected.
        :raises VoucherRequired: a voucher is wanted and none, a wrong one, or one that was used up, was shown.
        """
        window, device = candidate.window, candidate.device
        if window is not None:
            return _admit(candidate.request, window.key_digest, window.voucher_hash, window.expires_at, candidate.now)
        if device is None or not device.registered:
            raise NotAdmitted("this device is not registered")
        if device.state is DeviceState.REGISTERED:
            return _admit(
                candidate.request, device.key_digest, device.voucher_hash, device.admission_expires_at, candidate.now
            )
        # A registration's expiry and voucher admit one first identity. The voucher is spent; without it the device
        # would come back on less than it first showed.
        if device.voucher_hash is not None:
            raise VoucherRequired("the voucher of this device is used up; an operator opens a window with a new one")
        return _admit(candidate.request, device.key_digest, None, None, candidate.now)


class OpenDoor:
    """Every well-formed id comes in. For laboratories; the server warns at each start."""

    name = "open"

    def admit(self, candidate: Candidate) -> Admitted:
        """Admit; where a registration or a window asks for something, that is wanted all the same.

        :raises NotAdmitted: the registration names another key, or ended.
        :raises VoucherRequired: the registration wants a voucher.
        """
        if candidate.window is not None or (candidate.device is not None and candidate.device.registered):
            return RegisteredOnly().admit(candidate)
        return Admitted(proven=False)


def _admit(
    request: EnrollmentRequest,
    key_digest: Fingerprint | None,
    voucher_hash: Fingerprint | None,
    expires_at: datetime | None,
    now: datetime,
) -> Admitted:
    if expires_at is not None and expires_at <= now:
        raise NotAdmitted("the registration of this device has expired")
    if voucher_hash is not None:
        shown = request.voucher_hash
        if shown is None:
            raise VoucherRequired("this device must show its voucher")
        if not hmac.compare_digest(shown.hex, voucher_hash.hex):
            raise VoucherRequired("the voucher is not this device's")
    if key_digest is not None and key_digest != request.csr.spki:
        raise NotAdmitted("the registration of this device names another key")
    return Admitted(proven=voucher_hash is not None or key_digest is not None)
