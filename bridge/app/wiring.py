"""Which part gets which: the graph of the server, built from settings and connected systems."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from importlib.metadata import version
from ipaddress import IPv4Address
from typing import Final

from bridge.adapters.connecting import Authority, Systems
from bridge.adapters.platform import device_names
from bridge.adapters.tunnels import TunnelTerms
from bridge.admission import policy_named
from bridge.audit.sequencer import Sequencer
from bridge.config import Settings
from bridge.enrollment.decision import Rules
from bridge.enrollment.renewal import Renewal
from bridge.enrollment.service import Enrollment, Terms
from bridge.errors import Misconfigured
from bridge.model.identity import NamingRule, WireGuardKey
from bridge.model.records import Installation, System
from bridge.ports.registry import Registry
from bridge.ports.runtime import Clock, Randomness
from bridge.ports.signing import Signer
from bridge.reconcile.authority import AuthorityDoor
from bridge.reconcile.door import Door
from bridge.reconcile.platform import PlatformDoor
from bridge.reconcile.service import Hints, Reconciler
from bridge.reconcile.tunnels import TunnelsDoor
from bridge.reconcile.updates import UpdatesDoor
from bridge.reconcile.worker import Pace, Worker
from bridge.routes.meters import Meters
from bridge.routes.parts import (
    AnswerTerms,
    Check,
    HawkbitTerms,
    MqttTerms,
    Parts,
    TrustAnchors,
    VpnTerms,
    WebhookTerms,
)

_SHORTEST_DEADLINE: Final = timedelta(seconds=11)
"""The CA client's total time-out is 10 s: an attempt must outlive it."""

_PACES: Final = {System.WIREGUARD: Pace(at_once=256)}
"""One writing of the peers serves all links in hand; other systems are asked once a link."""


@dataclass(frozen=True, slots=True)
class Outfit:
    """What every builder below needs."""

    settings: Settings
    registry: Registry
    systems: Systems
    installation: Installation
    signer: Signer
    clock: Clock
    randomness: Randomness
    meters: Meters = field(default_factory=Meters)


def build_enrollment(outfit: Outfit) -> Enrollment:
    """Return the use case of enrollment.

    :raises Misconfigured: ``BRIDGE_SIGN_DEADLINE`` is not longer than the CA client's time-out.
    """
    settings = outfit.settings
    if settings.bridge_sign_deadline < _SHORTEST_DEADLINE:
        raise Misconfigured("BRIDGE_SIGN_DEADLINE must be at least 11s: the CA is given 10 s to answer")
    terms = Terms(
        rules=Rules(
            policy=policy_named(settings.bridge_admission or "registered"),
            reenrollment_allowed=settings.bridge_reenrollment == "allow",
            renew_grace=settings.bridge_renew_grace,
        ),
        lifetime=settings.bridge_cert_lifetime,
        sign_deadline=settings.bridge_sign_deadline,
        tunnels=outfit.systems.tunnels is not None,
    )
    authority = outfit.systems.authority.port
    return Enrollment(outfit.registry, authority, terms, outfit.clock, outfit.randomness)


def build_reconciler(outfit: Outfit, hints: Hints) -> Reconciler:
    """Return the reconciler with a worker for every system that is switched on, and the audit trail's sequencer."""
    workers = [
        Worker(system, door, outfit.registry, outfit.clock, outfit.randomness, _PACES.get(system, Pace()))
        for system, door in _doors(outfit).items()
    ]
    sequencer = Sequencer(outfit.registry, outfit.signer, outfit.clock, outfit.randomness, outfit.installation.id)
    unknown = outfit.meters.unknown_devices
    return Reconciler(outfit.registry, workers, hints, outfit.clock, unknown, beside=[sequencer.run])


def build_parts(outfit: Outfit, enrollment: Enrollment, hints: Hints) -> Parts:
    """Return what the HTTP door is made of."""
    settings, systems = outfit.settings, outfit.systems
    return Parts(
        enrollment=enrollment,
        renewal=Renewal(outfit.registry, outfit.clock),
        naming=NamingRule(settings.reserved_hosts),
        terms=_answer_terms(settings, systems.tunnel_terms),
        trust=_trust(systems.authority),
        webhook=WebhookTerms(secrets=_webhook_secrets(settings), event_names=device_names, look_at=hints.offer),
        clock=outfit.clock,
        meters=outfit.meters,
        version=version("iot-bridge"),
        readiness=_readiness(outfit),
        watched=_watched(systems),
        path_prefix=settings.bridge_path_prefix,
    )


def _doors(outfit: Outfit) -> Mapping[System, Door]:
    systems, registry, clock = outfit.systems, outfit.registry, outfit.clock
    installation = outfit.installation.id
    ours = outfit.settings.step_ca_profile == "strict"
    doors: dict[System, Door] = {
        System.CA: AuthorityDoor(registry, systems.authority.port, clock, serials_are_ours=ours)
    }
    if systems.platform is not None:
        doors[System.THINGSBOARD] = PlatformDoor(registry, systems.platform, clock, installation)
    if systems.updates is not None:
        doors[System.HAWKBIT] = UpdatesDoor(registry, systems.updates, clock, installation)
    if systems.tunnels is not None:
        quarantine = outfit.settings.bridge_lease_quarantine
        doors[System.WIREGUARD] = TunnelsDoor(registry, systems.tunnels, clock, quarantine)
    return doors


def _answer_terms(settings: Settings, tunnels: TunnelTerms | None) -> AnswerTerms:
    mqtt = hawkbit = None
    if settings.thingsboard_url is not None and settings.thingsboard_mqtt_host is not None:
        mqtt = MqttTerms(settings.thingsboard_mqtt_host, settings.thingsboard_mqtt_port)
    if settings.hawkbit_url is not None:
        hawkbit = HawkbitTerms(settings.hawkbit_public_url or settings.hawkbit_url, settings.hawkbit_tenant)
    return AnswerTerms(vpn=_vpn_terms(settings, tunnels), mqtt=mqtt, hawkbit=hawkbit)


def _vpn_terms(settings: Settings, tunnels: TunnelTerms | None) -> VpnTerms | None:
    if tunnels is None:
        return None
    terms = tunnels

    def render(address: IPv4Address, *, private_key_line: bool) -> str:
        return terms.render(address, placeholder=private_key_line)

    return VpnTerms(
        allowed_ips=(terms.subnet,),
        server_public_key=WireGuardKey(settings.wg_server_public_key or ""),
        endpoint=settings.wg_server_endpoint or "",
        render=render,
        persistent_keepalive=terms.keepalive,
    )


def _trust(authority: Authority) -> TrustAnchors:
    return TrustAnchors(authority.port.roots(), authority.root_sha256, authority.port.intermediates())


def _webhook_secrets(settings: Settings) -> tuple[str, ...]:
    found = (settings.bridge_webhook_secret, settings.bridge_webhook_secret_old)
    return tuple(secret.get_secret_value() for secret in found if secret is not None)


def _readiness(outfit: Outfit) -> Mapping[str, Check]:
    async def store() -> None:
        await outfit.registry.read(lambda tx: tx.installation())

    return {"store": store, "ca": outfit.systems.authority.port.check}


def _watched(systems: Systems) -> Mapping[str, Check]:
    watched: dict[str, Check] = {}
    if systems.platform is not None:
        watched["thingsboard"] = systems.platform.check
    if systems.updates is not None:
        watched["hawkbit"] = systems.updates.check
    if systems.tunnels is not None:
        tunnels = systems.tunnels

        async def reported() -> None:
            await tunnels.applied()

        watched["wireguard"] = reported
    return watched
