"""The protocol between device and bridge, as data.

Responsible for the names, codes and shapes that both sides must agree on: request and answer
fields, problem codes, header names, and the proof's claims. It is the only module of ``enroll``
that the bridge may import, so it needs nothing but the standard library.

Not responsible for transport, for cryptography, or for deciding anything.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

_DIGEST: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)

MAX_BODY: Final = 32 * 1024
"""Largest request body the bridge reads, in bytes."""

PROBLEM_JSON: Final = "application/problem+json"
"""Media type of every error answer (RFC 9457)."""

PROBLEM_TYPE_PREFIX: Final = "urn:iot-bridge:problem:"
"""``type`` of a problem document is this prefix and the code; how a device tells ours from a proxy's."""

VOUCHER_HEADER: Final = "X-Provisioning-Key"
"""Header that may carry the voucher instead of the body."""

WEBHOOK_SECRET_HEADER: Final = "X-Bridge-Webhook-Secret"  # noqa: S105 - a header's name, not a secret
"""Header in which the platform proves that it may post events."""

PROOF_TYPE: Final = "iot-enroll+jws"
"""``typ`` of a proof's JWS header."""

PROOF_ALGORITHMS: Final = ("ES256", "ES384", "EdDSA", "PS256")
"""``alg`` of a proof's JWS header: for keys on P-256, on P-384, of Ed25519, and of RSA (RFC 7518, RFC 8037)."""

MAX_PROOF: Final = 4096
"""Longest proof the bridge reads, in characters; one by an RSA key of 8192 bits has half of them."""

PRIVATE_KEY_PLACEHOLDER: Final = "<REPLACE_WITH_DEVICE_PRIVATE_KEY>"
"""What stands for the private key in the old dialect's ``wireguard_config``."""


class Code(StrEnum):
    """Every ``code`` a problem document of the bridge can carry."""

    BAD_CSR = "bad_csr"
    BAD_WG_KEY = "bad_wg_key"
    BAD_DEVICE_ID = "bad_device_id"
    BAD_REQUEST = "bad_request"
    VOUCHER_REQUIRED = "voucher_required"
    NOT_ADMITTED = "not_admitted"
    RETIRED = "retired"
    ID_SPELLING = "id_spelling"
    KEY_IN_USE = "key_in_use"
    WG_KEY_IN_USE = "wg_key_in_use"
    WG_KEY_DIFFERS = "wg_key_differs"
    IDENTITY_EXISTS = "identity_exists"
    IN_PROGRESS = "in_progress"
    EXPIRED = "expired"
    SUPERSEDED = "superseded"
    TOO_LARGE = "too_large"
    TOO_MANY = "too_many"
    CA_UNREACHABLE = "ca_unreachable"
    CA_REFUSED = "ca_refused"
    CA_BAD_ANSWER = "ca_bad_answer"
    POOL_EMPTY = "pool_empty"
    STORE_UNAVAILABLE = "store_unavailable"
    UNAUTHORIZED = "unauthorized"
    NOT_FOUND = "not_found"
    INTERNAL = "internal"


FINAL_CODES: Final = frozenset({Code.RETIRED, Code.BAD_CSR})
"""The only codes after which a device stops for good; everything else is tried again, slowly."""


class CertificateState(StrEnum):
    """``state`` of an answer: is the certificate in use, or does it wait for its activation?"""

    CURRENT = "current"
    PENDING = "pending"


class Act(StrEnum):
    """``act`` of a proof: what it is made for."""

    RENEW = "renew"
    ACTIVATE = "activate"


class WireError(ValueError):
    """A message that does not have the agreed shape. The text names the field."""


def _text(data: Mapping[str, Any], name: str) -> str:
    value = data.get(name)
    if not isinstance(value, str) or not value:
        raise WireError(f"field {name!r} is missing or is not text")
    return value


def _number(data: Mapping[str, Any], name: str) -> int:
    value = data.get(name)
    if not isinstance(value, int) or isinstance(value, bool):
        raise WireError(f"field {name!r} is missing or is not a whole number")
    return value


def _time(data: Mapping[str, Any], name: str) -> datetime:
    text = _text(data, name)
    try:
        value = datetime.fromisoformat(text)
    except ValueError as e:
        raise WireError(f"field {name!r} is not an RFC 3339 time") from e
    if value.tzinfo is None:
        raise WireError(f"field {name!r} has no UTC offset")
    try:
        return value.astimezone(UTC)
    except OverflowError as e:
        raise WireError(f"field {name!r} is out of all time") from e


def _section(data: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    value = data.get(name)
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise WireError(f"field {name!r} is neither null nor an object")
    return value


def _digest(data: Mapping[str, Any], name: str) -> str:
    value = _text(data, name)
    if not _DIGEST.fullmatch(value):
        raise WireError(f"field {name!r} is not a SHA-256 digest in lower-case hex")
    return value


@dataclass(frozen=True, slots=True)
class ProofClaims:
    """What a device signs with the key of a certificate of its own, in a compact JWS of type :data:`PROOF_TYPE`.

    It names the leaf, so it is dead as soon as the registry has moved on: no clock, no nonce.
    """

    aud: str
    """SHA-256 of the DER of a root that the bridge serves; like every digest here 64 lower-case hex digits."""
    act: Act
    device_id: str
    csr_sha256: str | None
    """SHA-256 of the DER of the CSR in the same request; ``None`` to activate, and only then."""
    wg_public_key: str | None
    """``wg_public_key`` of the same request; ``None`` where it has none."""
    leaf: str
    """SHA-256 of the DER of the leaf whose key signs: the current one to renew, the pending one to activate."""

    def to_json(self) -> dict[str, Any]:
        """Return the claims as the JSON object to sign; every field is there, also where it is null."""
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_json(cls, data: object) -> ProofClaims:
        """Parse claims: exactly these fields, for one that a reader does not know might restrict the proof.

        :raises WireError: a field is missing, of the wrong kind, unknown, or not for this act.
        """
        if not isinstance(data, Mapping):
            raise WireError("the claims are not a JSON object")
        if set(data) != set(cls.__slots__):
            raise WireError("the claims do not have exactly the agreed fields")
        try:
            act = Act(_text(data, "act"))
        except ValueError as e:
            raise WireError("field 'act' names no act of a proof") from e
        if (data["csr_sha256"] is None) != (act is Act.ACTIVATE):
            raise WireError("field 'csr_sha256' is null to activate, and only then")
        return cls(
            aud=_digest(data, "aud"),
            act=act,
            device_id=_text(data, "device_id"),
            csr_sha256=None if data["csr_sha256"] is None else _digest(data, "csr_sha256"),
            wg_public_key=None if data["wg_public_key"] is None else _text(data, "wg_public_key"),
            leaf=_digest(data, "leaf"),
        )


@dataclass(frozen=True, slots=True)
class EnrollRequest:
    """Body of ``POST /devices/{device_id}/enroll``; ``None`` fields are left out."""

    csr_pem: str
    wg_public_key: str | None = None
    device_name: str | None = None
    device_type: str | None = None
    voucher: str | None = None
    proof: str | None = None
    hardware: Mapping[str, Any] | None = None
    network: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object to send."""
        fields = {name: getattr(self, name) for name in self.__slots__}
        return {name: value for name, value in fields.items() if value is not None}


@dataclass(frozen=True, slots=True)
class WireGuardAnswer:
    """``wg`` of the answer. ``config`` is not read: a device renders its own from typed fields."""

    address: str
    server_public_key: str
    endpoint: str
    allowed_ips: tuple[str, ...]
    persistent_keepalive: int
    """Seconds between keep-alive packets; 0 means none."""


@dataclass(frozen=True, slots=True)
class MqttAnswer:
    """``mqtt`` of the answer: the broker as the device can reach it."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class HawkbitAnswer:
    """``hawkbit`` of the answer: the update server as the device can reach it."""

    url: str
    tenant: str


@dataclass(frozen=True, slots=True)
class EnrollAnswer:
    """Body of a 200 or 201 to an enrollment, checked for shape only."""

    device_id: str
    generation: int
    state: CertificateState
    cert: str
    ca_chain: str
    not_after: datetime
    renew_after: datetime
    server_time: datetime
    wg: WireGuardAnswer | None
    mqtt: MqttAnswer | None
    hawkbit: HawkbitAnswer | None

    @classmethod
    def from_json(cls, data: object) -> EnrollAnswer:
        """Parse an answer; unknown fields are ignored.

        :raises WireError: a field is missing or of the wrong kind.
        """
        if not isinstance(data, Mapping):
            raise WireError("the answer is not a JSON object")
        try:
            state = CertificateState(_text(data, "state"))
        except ValueError as e:
            raise WireError("field 'state' is neither 'current' nor 'pending'") from e
        return cls(
            device_id=_text(data, "device_id"),
            generation=_number(data, "generation"),
            state=state,
            cert=_text(data, "cert"),
            ca_chain=_text(data, "ca_chain"),
            not_after=_time(data, "not_after"),
            renew_after=_time(data, "renew_after"),
            server_time=_time(data, "server_time"),
            wg=_parse_wireguard(_section(data, "wg")),
            mqtt=_parse_mqtt(_section(data, "mqtt")),
            hawkbit=_parse_hawkbit(_section(data, "hawkbit")),
        )


def _parse_wireguard(data: Mapping[str, Any] | None) -> WireGuardAnswer | None:
    if data is None:
        return None
    allowed = data.get("allowed_ips")
    if not isinstance(allowed, list) or not all(isinstance(item, str) for item in allowed):
        raise WireError("field 'allowed_ips' is not a list of texts")
    return WireGuardAnswer(
        address=_text(data, "address"),
        server_public_key=_text(data, "server_public_key"),
        endpoint=_text(data, "endpoint"),
        allowed_ips=tuple(allowed),
        persistent_keepalive=_number(data, "persistent_keepalive"),
    )


def _parse_mqtt(data: Mapping[str, Any] | None) -> MqttAnswer | None:
    if data is None:
        return None
    return MqttAnswer(host=_text(data, "host"), port=_number(data, "port"))


def _parse_hawkbit(data: Mapping[str, Any] | None) -> HawkbitAnswer | None:
    if data is None:
        return None
    return HawkbitAnswer(url=_text(data, "url"), tenant=_text(data, "tenant"))


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem document of the bridge (RFC 9457): what went wrong and what a person can do."""

    status: int
    code: Code
    title: str
    detail: str

    @property
    def final(self) -> bool:
        """True if trying again can never help."""
        return self.code in FINAL_CODES

    @classmethod
    def from_json(cls, status: int, data: object) -> Problem | None:
        """Return the problem, or ``None`` if the document is not one of ours."""
        if not isinstance(data, Mapping):
            return None
        code = data.get("code")
        if not isinstance(code, str) or data.get("type") != PROBLEM_TYPE_PREFIX + code:
            return None
        try:
            known = Code(code)
        except ValueError:
            return None
        title, detail = (text if isinstance(text := data.get(name), str) else "" for name in ("title", "detail"))
        return cls(status, known, title, detail)
