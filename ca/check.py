"""Check of what came back from the CA (signatures first; the bodies follow)."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from ca.models import CheckedLeaf, Profile, SignedChain, TrustAnchor


@dataclass(frozen=True, slots=True)
class Expected:
    """What was asked for: the leaf must be exactly this."""

    device_id: str
    spki_der: bytes
    serial: int
    lifetime: timedelta
    profile: Profile = "bridge"


def check_leaf(chain: SignedChain, expected: Expected, anchor: TrustAnchor, *, now: datetime) -> CheckedLeaf:
    """Return the leaf if every check holds, else raise CaBadAnswer whose ``failed`` names the check."""
    raise NotImplementedError
