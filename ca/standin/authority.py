"""The embedded CA itself, without HTTP: what it answers to a parsed request.

Not responsible for routes (``ca.standin.api``) nor for listening (``ca.standin.server``).
"""

import hashlib
import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.serialization import Encoding

from ca.standin.durations import integer, undecodable, validity
from ca.standin.files import private_folder, write_private
from ca.standin.hierarchy import Hierarchy, load_or_make
from ca.standin.provisioners import NewProvisioner, new_provisioner
from ca.standin.refusals import bad_request, forbidden, not_implemented
from ca.standin.requests import check_csr, names_of, parse_csr
from ca.standin.signing import CRL_LIFETIME, Signer, Wish
from ca.standin.store import Signed, Store
from ca.standin.tokens import Known, TokenJudge
from ca.template import DEFAULT_LIFETIME, device_template, provisioner_entry, server_template

DEVICE_PROVISIONER: Final = "iot-bridge"
SERVER_PROVISIONER: Final = "iot-bridge-server"
DATABASE: Final = "ca.sqlite"
_ITERATIONS: Final = 100_000
_MAX_REASON: Final = 10


@dataclass(frozen=True, slots=True)
class Rules:
    """What the embedded CA allows: names of servers, its own host names, the longest certificate."""

    server_names: tuple[str, ...]
    hosts: tuple[str, ...]
    max_duration: timedelta


class Authority:
    """A CA whose keys, provisioners and memory live in ``folder``; ``close()`` ends its use."""

    def __init__(self, folder: Path, rules: Rules, clock: Callable[[], datetime]) -> None:
        private_folder(folder)
        self.clock = clock
        self.rules = rules
        self.hierarchy: Hierarchy = load_or_make(folder / "pki", clock())
        self.password, self._provisioners = _load_provisioners(folder / "provisioners.json")
        self.store = Store(folder / DATABASE)
        self.signer = Signer(self.hierarchy)
        known = tuple(Known(p.name, p.kid, jwt.PyJWK(dict(p.public_jwk)).key) for p in self._provisioners)
        self._tokens = TokenJudge(known, rules.hosts, self.store, clock)
        self._crl: tuple[datetime, bytes] | None = None

    def close(self) -> None:
        """Close the database."""
        self.store.close()

    def entries(self) -> list[dict[str, Any]]:
        """Return both provisioners as ca.json and ``/provisioners`` show them."""
        templates = {
            DEVICE_PROVISIONER: device_template(),
            SERVER_PROVISIONER: server_template(self.rules.server_names),
        }
        return [
            provisioner_entry(
                one.name,
                one.public_jwk,
                templates[one.name],
                encrypted_key=one.encrypted_key,
                max_lifetime=self.rules.max_duration,
            )
            for one in self._provisioners
        ]

    def encrypted_key(self, kid: str) -> str | None:
        """Return the JWE of the provisioner key ``kid``, None where there is none."""
        return next((one.encrypted_key for one in self._provisioners if one.kid == kid), None)

    def sign(self, body: Mapping[str, Any]) -> tuple[str, ...]:
        """Answer ``/sign``: the leaf and its issuers as PEM; the serial is written down before this returns."""
        csr = parse_csr(body.get("csr"))
        token = _token(body)
        if token is None:
            raise bad_request("missing ott")
        known, claims = self._tokens.judge(token, "sign")
        key = check_csr(csr, claims)
        default = min(DEFAULT_LIFETIME, self.rules.max_duration)
        begin, end = validity(
            body.get("notBefore"), body.get("notAfter"), self.clock(), default, self.rules.max_duration
        )
        wish = Wish(str(claims["sub"]), names_of(claims), key, begin, end, known.name, known.kid)
        if known.name == DEVICE_PROVISIONER:
            leaf = self.signer.device(wish, claims)
        else:
            leaf = self.signer.server(wish, self.rules.server_names)
        digest = hashlib.sha256(leaf.public_bytes(Encoding.DER)).hexdigest()
        self.store.add_signed(Signed(leaf.serial_number, wish.subject, known.name, digest, end))
        return leaf.public_bytes(Encoding.PEM).decode(), *self.signer.chain_pems

    def revoke(self, body: Mapping[str, Any]) -> None:
        """Answer ``/revoke``: any serial, issued or not, once."""
        serial = _revoked_serial(body.get("serial"))
        code = body.get("reasonCode", 0)
        if not isinstance(code, int) or isinstance(code, bool) or not isinstance(body.get("passive", False), bool):
            raise undecodable()
        if not 0 <= code <= _MAX_REASON:
            raise bad_request("reasonCode out of bounds")
        if not body.get("passive"):
            raise not_implemented("non-passive revocation not implemented")
        token = _token(body)
        if token is None:
            raise bad_request("missing ott or client certificate")
        _known, claims = self._tokens.judge(token, "revoke")
        if claims["sub"] != str(serial):
            raise forbidden(f'request serial number "{serial}" and token subject "{claims["sub"]}" do not match')
        if not self.store.revoke(serial, self.clock(), code, str(body.get("reason", ""))):
            raise bad_request(f"certificate with serial number '{serial}' is already revoked")
        self._crl = None

    def crl(self) -> bytes:
        """Return the revocation list as DER: new after each revocation, and every twelve hours."""
        now = self.clock()
        if self._crl is None or now - self._crl[0] > CRL_LIFETIME / 2:
            url = f"https://{self.rules.hosts[0]}/1.0/crl"
            self._crl = now, self.signer.crl(self.store.revoked(), self.store.next_crl_number(), now, url)
        return self._crl[1]


def _token(body: Mapping[str, Any]) -> str | None:
    token = body.get("ott")
    if token is not None and not isinstance(token, str):
        raise undecodable()
    return token or None


def _revoked_serial(value: object) -> int:
    if value is None or value == "":
        raise bad_request("missing serial")
    if not isinstance(value, str):
        raise undecodable()
    try:
        return integer(value)
    except ValueError as error:
        raise bad_request(
            f"'{value}' is not a valid serial number - use a base 10 representation or a base 16 representation "
            "with '0x' prefix"
        ) from error


def _load_provisioners(path: Path) -> tuple[str, tuple[NewProvisioner, ...]]:
    if path.exists():
        kept = json.loads(path.read_text())
        return kept["password"], tuple(NewProvisioner(**one) for one in kept["provisioners"])
    password = secrets.token_urlsafe(32)
    made = tuple(
        new_provisioner(name, password, iterations=_ITERATIONS) for name in (DEVICE_PROVISIONER, SERVER_PROVISIONER)
    )
    kept = {"password": password, "provisioners": [asdict(one) for one in made]}
    write_private(path, json.dumps(kept).encode())
    return password, made
