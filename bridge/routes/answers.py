"""The answer to an enrollment, written as compact JSON.

Compact is part of the protocol: an existing client looks for ``"certificate":"`` without a space. What does not change
between requests is rendered once. Not responsible for status codes or for what is answered to whom.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, Final

from bridge.enrollment.service import Enrolled
from bridge.model.records import IssuanceState, Lease
from bridge.routes.parts import AnswerTerms, TrustAnchors, VpnTerms
from enroll.wire import CertificateState

JSON_HEADERS: Final = {"Content-Type": "application/json", "Cache-Control": "no-store"}

_compact: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def compact(value: object) -> bytes:
    """Return JSON without blanks, UTF-8."""
    return _compact(value).encode()


def rfc3339(moment: datetime) -> str:
    """Return an aware time as RFC 3339 in UTC, whole seconds, ``Z``."""
    utc = moment if moment.tzinfo is UTC else moment.astimezone(UTC)
    return f"{utc.isoformat(timespec='seconds')[:-6]}Z"


class Answers:
    """Writes answers under one set of terms."""

    def __init__(self, terms: AnswerTerms, trust: TrustAnchors) -> None:
        self._terms = terms
        self._root = trust.root
        self._mqtt = None if terms.mqtt is None else {"host": terms.mqtt.host, "port": terms.mqtt.port}
        self._hawkbit = None if terms.hawkbit is None else {"url": terms.hawkbit.url, "tenant": terms.hawkbit.tenant}

    def render(self, enrolled: Enrolled, now: datetime, *, old_dialect: bool) -> bytes:
        """Return the body; with the old dialect's fields and the root in ``ca_chain`` if asked for.

        :raises ValueError: the use case handed out an issuance without a certificate.
        """
        issued = enrolled.issuance
        if issued.leaf is None or issued.chain is None or issued.not_before is None or issued.not_after is None:
            raise ValueError(f"issuance {issued.serial} has no certificate to answer with")
        lifetime = issued.not_after - issued.not_before
        pending = issued.state is IssuanceState.PENDING
        vpn, lease = self._terms.vpn, enrolled.lease
        tunnel = (vpn, lease) if vpn is not None and lease is not None and lease.wg_key is not None else None
        answer: dict[str, Any] = {
            "device_id": issued.device.value,
            "generation": issued.generation,
            "state": CertificateState.PENDING if pending else CertificateState.CURRENT,
            "cert": issued.leaf,
            "ca_chain": issued.chain,
            "not_after": rfc3339(issued.not_after),
            "renew_after": rfc3339(issued.not_before + lifetime * self._terms.renew_fraction),
            "server_time": rfc3339(now),
            "wg": None if tunnel is None else _wireguard(*tunnel),
            "mqtt": self._mqtt,
            "hawkbit": self._hawkbit,
        }
        if old_dialect:
            answer["certificate"] = issued.leaf
            answer["ca_chain"] = _lines(issued.chain) + _lines(self._root)
            answer["wireguard_ip"] = "" if tunnel is None else str(tunnel[1].address)
            answer["wireguard_config"] = (
                "" if tunnel is None else tunnel[0].render(tunnel[1].address, private_key_line=True)
            )
        return compact(answer)


def _wireguard(vpn: VpnTerms, lease: Lease) -> dict[str, Any]:
    return {
        "address": f"{lease.address}/32",
        "server_public_key": vpn.server_public_key.text,
        "endpoint": vpn.endpoint,
        "allowed_ips": [str(network) for network in vpn.allowed_ips],
        "persistent_keepalive": vpn.persistent_keepalive,
        "config": vpn.render(lease.address, private_key_line=False),
    }


def _lines(pem: str) -> str:
    return pem if pem.endswith("\n") else pem + "\n"
