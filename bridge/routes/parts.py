"""What the HTTP door is given: use cases, terms and trust as values, everything else as a narrow Protocol.

Responsible for saying what :func:`bridge.routes.api.build_api` needs, and for refusing parts that make no sense.
Not responsible for building any of it; the composition root does.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from typing import Final, Protocol

from bridge.enrollment.proof import Proof
from bridge.enrollment.renewal import Activated
from bridge.enrollment.service import Enrolled
from bridge.model.facts import EnrollmentRequest
from bridge.model.identity import DeviceId, Fingerprint, NamingRule, Pem, WireGuardKey
from bridge.ports.runtime import Clock
from bridge.routes.meters import Meters

_PREFIX: Final = re.compile(r"(?:/[A-Za-z0-9._~-]+)*")
_MAX_SECRETS: Final = 2

Check = Callable[[], Awaitable[None]]
"""Asks one part whether it works; raises :class:`bridge.errors.BridgeError` with words for people if not."""


class Enrolls(Protocol):
    """The use case of enrollment, as :class:`bridge.enrollment.service.Enrollment` is it."""

    async def enroll(self, request: EnrollmentRequest, request_id: str | None = None) -> Enrolled:
        """Return the one certificate of the request's public key, or raise a :class:`bridge.errors.BridgeError`."""
        ...


class Renews(Protocol):
    """The use case of renewal, as :class:`bridge.enrollment.renewal.Renewal` is it."""

    async def prove(self, proof: Proof, request: EnrollmentRequest) -> EnrollmentRequest:
        """Return the request with the leaf that proves it, or raise :class:`bridge.errors.BadProof`."""
        ...

    async def activate(self, device: DeviceId, proof: Proof, request_id: str | None = None) -> Activated:
        """Make a pending certificate the current one, or raise a :class:`bridge.errors.BridgeError`."""
        ...


class RenderTunnel(Protocol):
    """Writes a device's ``wg0.conf``."""

    def __call__(self, address: IPv4Address, *, private_key_line: bool) -> str:
        """Return the text: without ``PrivateKey``, or with the line that holds the old dialect's placeholder."""
        ...


class EventNames(Protocol):
    """Reads a platform's event."""

    def __call__(self, body: bytes, headers: Mapping[str, str]) -> Sequence[str]:
        """Return the names of the devices to look at, as they stand in the event; empty for anything else."""
        ...


class LookAt(Protocol):
    """Where hints go."""

    def __call__(self, devices: Sequence[DeviceId]) -> bool:
        """Take the hint without waiting; False if there is no room for it now."""
        ...


@dataclass(frozen=True, slots=True)
class VpnTerms:
    """The VPN as a device is told of it."""

    allowed_ips: tuple[IPv4Network, ...]
    server_public_key: WireGuardKey
    endpoint: str
    """``host:port`` that devices can reach."""
    render: RenderTunnel
    persistent_keepalive: int = 25
    """Seconds."""


@dataclass(frozen=True, slots=True)
class MqttTerms:
    """The broker as a device can reach it."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class HawkbitTerms:
    """The update server as a device can reach it."""

    url: str
    tenant: str


@dataclass(frozen=True, slots=True)
class AnswerTerms:
    """What stands in an answer beside the certificate; ``None`` for a system that is switched off."""

    vpn: VpnTerms | None = None
    mqtt: MqttTerms | None = None
    hawkbit: HawkbitTerms | None = None
    renew_fraction: float = 2 / 3
    """Part of a certificate's lifetime after which a device should renew."""

    def __post_init__(self) -> None:
        if not 0 < self.renew_fraction < 1:
            raise ValueError("renew_fraction lies between 0 and 1")


@dataclass(frozen=True, slots=True)
class TrustAnchors:
    """The tenant's certificates that anyone may have."""

    root: Pem
    root_sha256: Fingerprint
    """SHA-256 of the root's DER: what devices pin."""
    intermediates: tuple[Pem, ...]
    """Issuing CA first, then its issuers, without the root."""


@dataclass(frozen=True, slots=True)
class WebhookTerms:
    """How the platform's events come in."""

    secrets: tuple[str, ...] = field(repr=False)
    """One, or two while they are rotated; none shuts the door."""
    event_names: EventNames
    look_at: LookAt

    def __post_init__(self) -> None:
        if len(self.secrets) > _MAX_SECRETS or not all(self.secrets):
            raise ValueError("at most two webhook secrets, none of them empty")


def _request_id() -> str:
    return secrets.token_hex(8)


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything the application is made of."""

    enrollment: Enrolls
    renewal: Renews
    naming: NamingRule
    terms: AnswerTerms
    trust: TrustAnchors
    webhook: WebhookTerms
    clock: Clock
    meters: Meters
    version: str
    readiness: Mapping[str, Check] = field(default_factory=dict)
    """Parts without which no device can enroll: one that is down makes the server not ready."""
    watched: Mapping[str, Check] = field(default_factory=dict)
    """Parts that are shown with the others, but are caught up with later (ThingsBoard, hawkBit, the VPN)."""
    path_prefix: str = ""
    """Where old devices look for the API too, such as ``/api``; empty for nowhere else."""
    max_open_enrollments: int = 512
    """Above this many at once a request is answered 429."""
    new_request_id: Callable[[], str] = _request_id

    def __post_init__(self) -> None:
        if not _PREFIX.fullmatch(self.path_prefix):
            raise ValueError("path_prefix starts with a slash and does not end with one")
