"""Reading a proof (the wire protocol, section 3): a compact JWS (RFC 7515) that speaks of one request.

Responsible for its form, its header, and its claims against the request that carries it. Not responsible for its
signature (:mod:`bridge.enrollment.proof`), nor for which leaf may prove what.

The header is read for ``typ`` and ``alg`` alone. Whatever it says of keys (``jwk``, ``jku``, ``kid``, ``x5c``) is not
looked at: the key is the registry's, and the key alone says which algorithm counts.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from bridge.enrollment.proof import Proof
from bridge.errors import BadProof
from bridge.model.identity import DeviceId, Fingerprint, WireGuardKey
from enroll.wire import MAX_PROOF, PROOF_ALGORITHMS, PROOF_TYPE, Act, ProofClaims, WireError

_SEGMENTS: Final = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Expected:
    """What a proof must say to count for one request."""

    act: Act
    device: DeviceId
    csr: Fingerprint | None
    """Digest of the DER of the request's CSR."""
    wg_key: WireGuardKey | None


def read_proof(text: str, expected: Expected, root: Fingerprint) -> Proof:
    """Return the proof if it is well formed and speaks of exactly this request, at this bridge.

    :param root: SHA-256 of the root that the bridge serves.
    :raises BadProof: naming what is wrong, never what was sent.
    """
    found = _SEGMENTS.fullmatch(text) if len(text) <= MAX_PROOF else None
    if found is None:
        raise BadProof("the proof is not a compact JWS of bounded length")
    algorithm = _read_header(_object(_decode(found[1])))
    try:
        claims = ProofClaims.from_json(_object(_decode(found[2])))
    except WireError as e:
        raise BadProof(f"the proof's claims are not as agreed: {e}") from e
    _compare(claims, expected, root)
    return Proof(Fingerprint(claims.leaf), algorithm, text.rpartition(".")[0].encode(), _decode(found[3]))


def _read_header(header: dict[str, Any]) -> str:
    if header.get("typ") != PROOF_TYPE:
        raise BadProof(f"the proof's type is not {PROOF_TYPE}")
    if "crit" in header:
        # RFC 7515, section 4.1.11: what must be understood, and is not, makes it invalid.
        raise BadProof("the proof's header has critical extensions")
    algorithm = header.get("alg")
    if not isinstance(algorithm, str) or algorithm not in PROOF_ALGORITHMS:
        raise BadProof(f"the proof's algorithm is none of {', '.join(PROOF_ALGORITHMS)}")
    return algorithm


def _compare(claims: ProofClaims, expected: Expected, root: Fingerprint) -> None:
    if claims.aud != root.hex:
        raise BadProof("the proof is for another bridge: 'aud' is not this one's root")
    if claims.act is not expected.act:
        raise BadProof(f"the proof is not made to {expected.act}")
    if claims.device_id != expected.device.value:
        raise BadProof("the proof is of another device id")
    if claims.csr_sha256 != (None if expected.csr is None else expected.csr.hex):
        raise BadProof("the proof is for another CSR")
    if claims.wg_public_key != (None if expected.wg_key is None else expected.wg_key.text):
        raise BadProof("the proof is for another WireGuard key")


def _decode(segment: str) -> bytes:
    """Decode base64url without padding; one text for each value, so that nothing can be said in two spellings."""
    try:
        value = base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
    except (binascii.Error, ValueError) as e:
        raise BadProof("the proof is not base64url") from e
    if base64.urlsafe_b64encode(value).rstrip(b"=") != segment.encode():
        raise BadProof("the proof is not canonical base64url")
    return value


def _object(content: bytes) -> dict[str, Any]:
    try:
        value = _DECODER.decode(content.decode("utf-8"))
    except (ValueError, RecursionError) as e:
        raise BadProof("a part of the proof is not JSON") from e
    if not isinstance(value, dict):
        raise BadProof("a part of the proof is not a JSON object")
    return value


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise BadProof("the proof names a field twice")
    return fields


def _no_constant(name: str) -> NoReturn:
    raise BadProof(f"a part of the proof is not JSON: {name} is not a number")


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_pairs, parse_constant=_no_constant)
