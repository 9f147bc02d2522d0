"""When a certificate is to be renewed: by the time believed, and spread over the fleet.

Responsible for one pure rule. The spread is drawn from the certificate's own digest, so that it is the same at
each start and needs no memory; certificates of one day fall due over a quarter of what is left of their life.

Not responsible for renewing.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from enroll.plan import Due
from enroll.record import Record
from enroll.trust.clock import Belief

SPREAD: Final = 0.25
"""Part of the time between ``renew_after`` and the end over which renewals are spread."""

_DIGITS: Final = 8


def renewal_time(record: Record) -> datetime:
    """Return when the certificate of the record falls due."""
    fraction = int(record.leaf_sha256[:_DIGITS], 16) / 16**_DIGITS
    return record.renew_after + (record.not_after - record.renew_after) * SPREAD * fraction


def due(record: Record, belief: Belief) -> Due:
    """Return the certificate's age.

    The floor has certainly passed: a renewal may fall due by it although no clock is believed.
    """
    if belief.now > record.not_after:
        return Due.EXPIRED
    if belief.now >= renewal_time(record):
        return Due.DUE
    return Due.NOT_YET if belief.trusted else Due.UNKNOWN
