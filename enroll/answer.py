"""The bridge's answer, believed only as a whole.

Responsible for putting together every check that stands between an answer and the disk: own id, own key,
chain to the anchor, typed tunnel and server fields. What comes out can be stored; nothing of an answer
that fails one check is.

Not responsible for the single rules (``enroll.trust.leaf``, ``enroll.trust.paths``, ``enroll.wgconf``) or for storing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar
from urllib.parse import urlsplit

from cryptography import x509

from enroll.errors import AnswerRejectedError
from enroll.names import BridgeUrl, DeviceId, HostPort, IpAddress, Network
from enroll.network.transport import Heard
from enroll.printable import printable
from enroll.record import Record
from enroll.trust import certificates, paths
from enroll.trust import leaf as own_leaf
from enroll.trust.clock import UNDATED, Belief, Timekeeper
from enroll.trust.paths import Anchor
from enroll.wgconf import TunnelConfig
from enroll.wire import CertificateState, EnrollAnswer, HawkbitAnswer, MqttAnswer, WireError

_T = TypeVar("_T")
_MAX_TEXT: Final = 2048
_MAX_GENERATION: Final = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Expected:
    """What the device knows by itself and compares an answer with."""

    device_id: DeviceId
    spki_sha256: str
    """Of the device key that the certificate must carry."""
    wireguard_public_key: str | None
    anchor: Anchor
    bridge: BridgeUrl
    states: frozenset[CertificateState] = frozenset({CertificateState.CURRENT})
    """The states that make sense as an answer to what was asked."""
    allowed_networks: tuple[Network, ...] = ()
    """What the device's own configuration lets the tunnel carry beyond the rules."""
    addresses: Callable[[str], Sequence[IpAddress]] = lambda _host: ()
    """Looks a host up; used to keep the tunnel from swallowing the way to bridge and broker."""


@dataclass(frozen=True, slots=True)
class Identity:
    """An answer that passed every check."""

    leaf: x509.Certificate
    chain: tuple[x509.Certificate, ...]
    """Issuing CA first, without the root."""
    roots: tuple[x509.Certificate, ...]
    tunnel: TunnelConfig | None
    record: Record


def verify(heard: Heard, expected: Expected, keeper: Timekeeper) -> Identity:
    """Check the JSON of a 200 or 201 completely; the server's time is heard on the way.

    :raises AnswerRejectedError: names the first thing that does not hold.
    """
    try:
        answer = EnrollAnswer.from_json(heard.body)
    except WireError as e:
        raise AnswerRejectedError(f"the bridge's answer: {e}") from e
    if answer.device_id != expected.device_id.value:
        raise AnswerRejectedError(
            f"the answer is for {printable(answer.device_id, 100)!r}, not for {expected.device_id}"
        )
    if answer.state not in expected.states:
        raise AnswerRejectedError(f"the certificate is {answer.state}, which is no answer to what was asked")
    if not 1 <= answer.generation <= _MAX_GENERATION:
        raise AnswerRejectedError("field 'generation' is no generation")
    certificate, chain = _certificates(answer, expected)
    paths.check_path(certificate, chain, expected.anchor, UNDATED)
    belief = _hear(heard, answer, certificate, chain, expected.anchor, keeper)
    paths.check_path(certificate, chain, expected.anchor, belief)
    paths.check_dates(certificate, belief)
    dates = certificates.validity(certificate)
    if not dates.begin <= answer.renew_after < dates.end:
        raise AnswerRejectedError("field 'renew_after' is not between the beginning and the end of the certificate")
    tunnel = _tunnel(answer, expected)
    record = _record(answer, certificate, tunnel, expected, belief)
    return Identity(certificate, chain, expected.anchor.roots, tunnel, record)


def _certificates(answer: EnrollAnswer, expected: Expected) -> tuple[x509.Certificate, tuple[x509.Certificate, ...]]:
    leaves = _load(answer.cert, "cert")
    if len(leaves) != 1:
        raise AnswerRejectedError(f"field 'cert' holds {len(leaves)} certificates; exactly one is expected")
    chain = _load(answer.ca_chain, "ca_chain")
    if chain[-1] in expected.anchor.roots:
        chain = chain[:-1]  # harmless: the root is known by its digest, not by being sent
    own_leaf.check(leaves[0], expected.device_id.value, expected.spki_sha256)
    return leaves[0], tuple(chain)


def _hear(
    heard: Heard,
    answer: EnrollAnswer,
    certificate: x509.Certificate,
    chain: tuple[x509.Certificate, ...],
    anchor: Anchor,
    keeper: Timekeeper,
) -> Belief:
    """Return the belief once the bridge's time was heard; without any, dates would go unchecked for good."""
    server = paths.extend_chain(heard.server_chain, [*chain, *anchor.issuers, *anchor.roots])
    keeper.hear(
        answer.server_time,
        certificates.validity(certificate),
        [certificates.validity(c) for c in server],
    )
    belief = keeper.belief()
    if not belief.trusted:
        raise AnswerRejectedError(
            f"the device's clock is wrong, and the bridge's time {answer.server_time:%Y-%m-%dT%H:%MZ} does not hold "
            "against its own certificates; set the clock of one of them"
        )
    return belief


def _tunnel(answer: EnrollAnswer, expected: Expected) -> TunnelConfig | None:
    if answer.wg is None:
        return None
    parts = urlsplit(str(expected.bridge))
    hosts = [parts.hostname or "", *([answer.mqtt.host] if answer.mqtt else [])]
    forbidden = [address for host in hosts for address in expected.addresses(host)]
    return TunnelConfig.from_answer(
        answer.wg, expected.wireguard_public_key, allowed=expected.allowed_networks, forbidden=forbidden
    )


def _load(text: str, name: str) -> list[x509.Certificate]:
    try:
        return certificates.load_all(text.encode())
    except ValueError as e:
        raise AnswerRejectedError(f"field {name!r} is no PEM certificate") from e


def _record(
    answer: EnrollAnswer,
    certificate: x509.Certificate,
    tunnel: TunnelConfig | None,
    expected: Expected,
    belief: Belief,
) -> Record:
    hawkbit = answer.hawkbit
    if hawkbit is not None:
        _check_hawkbit(hawkbit)
    return Record(
        device_id=answer.device_id,
        generation=answer.generation,
        serial=certificate.serial_number,
        leaf_sha256=str(certificates.sha256(certificate)),
        address=str(tunnel.address.ip) if tunnel else None,
        not_after=certificates.validity(certificate).end,
        renew_after=answer.renew_after,
        enrolled_at=belief.now,
        bridge=str(expected.bridge),
        endpoint=tunnel.endpoint if tunnel else None,
        mqtt=_broker(answer.mqtt) if answer.mqtt else None,
        hawkbit_url=hawkbit.url if hawkbit else None,
        hawkbit_tenant=hawkbit.tenant if hawkbit else None,
        state=answer.state,
        seen_at=belief.floor,
    )


def _broker(mqtt: MqttAnswer) -> HostPort:
    return _typed("mqtt", lambda: HostPort(mqtt.host, mqtt.port))


def _check_hawkbit(hawkbit: HawkbitAnswer) -> None:
    fit = hawkbit.url.isprintable() and hawkbit.tenant.isprintable()
    if not fit or max(len(hawkbit.url), len(hawkbit.tenant)) > _MAX_TEXT or " " in hawkbit.url:
        raise AnswerRejectedError("field 'hawkbit' holds characters that do not belong there")
    parts = _typed("hawkbit.url", lambda: urlsplit(hawkbit.url))
    if parts.scheme not in {"https", "http"}:
        raise AnswerRejectedError("field 'hawkbit.url' is no web address")
    _typed("hawkbit.url", lambda: HostPort(parts.hostname or "", 443 if parts.port is None else parts.port))


def _typed(name: str, make: Callable[[], _T]) -> _T:
    try:
        return make()
    except ValueError as e:
        raise AnswerRejectedError(f"field {name!r}: {e}") from e
