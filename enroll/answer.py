"""The bridge's answer, believed only as a whole.

Responsible for putting together every check that stands between an answer and the disk: own id, own key,
chain to the anchor, typed tunnel and server fields. What comes out can be stored; nothing of an answer
that fails one check is.

Not responsible for the single rules (``enroll.leaf``, ``enroll.trust``, ``enroll.wgconf``) or for storing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final, TypeVar
from urllib.parse import urlsplit

from cryptography import x509

from enroll import leaf as own_leaf
from enroll import trust
from enroll.errors import AnswerRejectedError
from enroll.keys import DeviceKey, WireGuardKey
from enroll.names import BridgeUrl, DeviceId, HostPort
from enroll.record import Record
from enroll.trust import Anchor
from enroll.wgconf import TunnelConfig
from enroll.wire import CertificateState, EnrollAnswer, HawkbitAnswer, MqttAnswer, WireError

_T = TypeVar("_T")
_MAX_TEXT: Final = 2048
_MAX_GENERATION: Final = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Expected:
    """What the device knows by itself and compares an answer with."""

    device_id: DeviceId
    key: DeviceKey
    wireguard: WireGuardKey
    anchor: Anchor
    bridge: BridgeUrl


@dataclass(frozen=True, slots=True)
class Identity:
    """An answer that passed every check."""

    leaf: x509.Certificate
    chain: tuple[x509.Certificate, ...]
    """Issuing CA first, without the root."""
    root: x509.Certificate
    tunnel: TunnelConfig | None
    record: Record


def verify(body: object, expected: Expected, now: datetime) -> Identity:
    """Check the JSON of a 200 or 201 completely.

    :param now: aware; the device's belief of the time.
    :raises AnswerRejectedError: names the first thing that does not hold.
    """
    try:
        answer = EnrollAnswer.from_json(body)
    except WireError as e:
        raise AnswerRejectedError(f"the bridge's answer: {e}") from e
    if answer.device_id != expected.device_id.value:
        raise AnswerRejectedError(f"the answer is for {answer.device_id!r}, not for {expected.device_id}")
    if answer.state is not CertificateState.CURRENT:
        raise AnswerRejectedError("the certificate still waits for its activation")
    if not 1 <= answer.generation <= _MAX_GENERATION:
        raise AnswerRejectedError("field 'generation' is no generation")
    certificate, chain = _certificates(answer, expected, now)
    tunnel = TunnelConfig.from_answer(answer.wg, expected.wireguard.public) if answer.wg else None
    return Identity(
        certificate, chain, expected.anchor.root, tunnel, _record(answer, certificate, tunnel, expected, now)
    )


def _certificates(
    answer: EnrollAnswer, expected: Expected, now: datetime
) -> tuple[x509.Certificate, tuple[x509.Certificate, ...]]:
    leaves = _load(answer.cert, "cert")
    if len(leaves) != 1:
        raise AnswerRejectedError(f"field 'cert' holds {len(leaves)} certificates; exactly one is expected")
    chain = _load(answer.ca_chain, "ca_chain")
    if chain[-1] == expected.anchor.root:
        chain = chain[:-1]  # harmless: the root is known by its digest, not by being sent
    own_leaf.check(leaves[0], expected.device_id.value, expected.key.spki_sha256)
    trust.check_path(leaves[0], chain, expected.anchor, now)
    trust.check_dates(leaves[0], now)
    if not answer.renew_after < leaves[0].not_valid_after_utc:
        raise AnswerRejectedError("field 'renew_after' is not before the end of the certificate")
    return leaves[0], tuple(chain)


def _load(text: str, name: str) -> list[x509.Certificate]:
    try:
        return trust.load_certificates(text.encode())
    except ValueError as e:
        raise AnswerRejectedError(f"field {name!r} is no PEM certificate") from e


def _record(
    answer: EnrollAnswer,
    certificate: x509.Certificate,
    tunnel: TunnelConfig | None,
    expected: Expected,
    now: datetime,
) -> Record:
    hawkbit = answer.hawkbit
    if hawkbit is not None:
        _check_hawkbit(hawkbit)
    return Record(
        device_id=answer.device_id,
        generation=answer.generation,
        serial=certificate.serial_number,
        leaf_sha256=str(trust.sha256(certificate)),
        address=str(tunnel.address.ip) if tunnel else None,
        not_after=certificate.not_valid_after_utc,
        renew_after=answer.renew_after,
        enrolled_at=now,
        bridge=str(expected.bridge),
        endpoint=tunnel.endpoint if tunnel else None,
        mqtt=_broker(answer.mqtt) if answer.mqtt else None,
        hawkbit_url=hawkbit.url if hawkbit else None,
        hawkbit_tenant=hawkbit.tenant if hawkbit else None,
    )


def _broker(mqtt: MqttAnswer) -> HostPort:
    return _typed("mqtt", lambda: HostPort(mqtt.host, mqtt.port))


def _check_hawkbit(hawkbit: HawkbitAnswer) -> None:
    printable = hawkbit.url.isprintable() and hawkbit.tenant.isprintable()
    if not printable or max(len(hawkbit.url), len(hawkbit.tenant)) > _MAX_TEXT or " " in hawkbit.url:
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
