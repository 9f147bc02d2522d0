"""What a provisioner of the CA must say, as text that an operator pastes into ca.json.

The same text is used by the embedded CA, by the real step-ca of the tests and by compose, and the bridge
compares what ``GET /provisioners`` shows with it before the first certificate. Not responsible for
signing or for reading the provisioner.

Template language: Go's ``text/template`` with sprig (smallstep, "Certificate templates").
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from ca.errors import CaMisconfigured
from ca.models import Provisioner

DEVICE_TEMPLATE = """{
  "subject": {{ toJson .Subject }},
  "sans": {{ toJson .SANs }},
  "serialNumber": {{ if .Token.serial }}{{ toJson .Token.serial }}{{ else }}{{ fail "no serial" }}{{ end }},
  "keyUsage": ["digitalSignature"],
  "extKeyUsage": ["clientAuth"]
}"""
"""Leaves of devices: client authentication only, and the serial that the bridge chose (the token's claim
``serial``).

Without the guard a token that lacks the claim would get serial 0.
"""

DEFAULT_LIFETIME = timedelta(days=30)
MAX_LIFETIME = timedelta(days=365)

_URL = re.compile(r"https?://[A-Za-z0-9.:\[\]/_~%-]+")
_CRL_LINE = re.compile(rf',\s*"crlDistributionPoints":\s*\["{_URL.pattern}"\](?=\s*\}}\s*$)')
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that keeps a provisioner from being ours, and the lines of ca.json that mend it."""

    what: str
    lines: str

    def __str__(self) -> str:
        return f"{self.what}; put into ca.json:\n{self.lines}"


def device_template(crl_url: str | None = None) -> str:
    """Return the template of the device provisioner.

    ``crl_url`` is written into each leaf as its CRL distribution point. A door that checks step-ca's CRL with OpenSSL
    (Mosquitto, nginx) needs it: step-ca marks its CRL with a critical issuing distribution point (``crl.idpURL``, by
    default ``https://<first of dnsNames>/1.0/crl``), and OpenSSL refuses it as "different CRL scope" (RFC 5280,
    6.3.3 b 2) for a leaf that does not name exactly the same one. ``ValueError`` if it is no http URL.
    """
    if crl_url is None:
        return DEVICE_TEMPLATE
    if not _URL.fullmatch(crl_url):
        raise ValueError("crl_url is an http or https URL")
    return DEVICE_TEMPLATE.removesuffix("\n}") + f',\n  "crlDistributionPoints": ["{crl_url}"]\n}}'


def server_template(names: tuple[str, ...]) -> str:
    """Return the template of the server provisioner: server authentication, and only for one of ``names``.

    Each certificate names exactly the host that the token's subject asks for. ``ValueError`` if a name is
    not a host name, so that none can break out of its quotes.
    """
    if not names or not all(_NAME.fullmatch(name) for name in names):
        raise ValueError("a server provisioner is locked to at least one host name")
    allowed = " ".join(f'"{name}"' for name in names)
    refusal = f"only {', '.join(names)}"
    return f"""{{
  {{{{ if not (has .Subject.CommonName (list {allowed})) }}}}{{{{ fail "{refusal}" }}}}{{{{ end }}}}
  "subject": {{"commonName": {{{{ toJson .Subject.CommonName }}}}}},
  "dnsNames": [{{{{ toJson .Subject.CommonName }}}}],
  "keyUsage": ["digitalSignature"],
  "extKeyUsage": ["serverAuth"]
}}"""


def go_duration(duration: timedelta) -> str:
    """Write ``duration`` as step-ca reads it: whole hours where they fit, else seconds (``90s``)."""
    seconds = int(duration.total_seconds())
    return f"{seconds // 3600}h" if seconds % 3600 == 0 else f"{seconds}s"


def claims(max_lifetime: timedelta = MAX_LIFETIME) -> dict[str, Any]:
    """Return the claims of our provisioners: no renewal past the bridge, and how long leaves may live."""
    return {
        "disableRenewal": True,
        "defaultTLSCertDuration": go_duration(min(DEFAULT_LIFETIME, max_lifetime)),
        "maxTLSCertDuration": go_duration(max_lifetime),
    }


def provisioner_entry(
    name: str,
    public_jwk: Mapping[str, Any],
    template: str,
    *,
    encrypted_key: str | None = None,
    max_lifetime: timedelta = MAX_LIFETIME,
) -> dict[str, Any]:
    """Return one whole entry of ca.json's ``authority.provisioners``.

    Without ``encrypted_key`` step-ca publishes no private key, and the bridge reads it from a file.
    """
    entry: dict[str, Any] = {"type": "JWK", "name": name, "key": dict(public_jwk)}
    if encrypted_key is not None:
        entry["encryptedKey"] = encrypted_key
    return entry | {"claims": claims(max_lifetime), "options": {"x509": {"template": template}}}


def judge(provisioner: Provisioner, *, lifetime: timedelta | None = None) -> tuple[Problem, ...]:
    """Say what keeps the device provisioner from being ours; empty when nothing does.

    Blanks in the template do not count, nor does a CRL distribution point (``device_template``). ``lifetime``
    is what the bridge will ask for: a stated shorter maximum is a problem (an unstated one is the CA's own
    default and cannot be read here).
    """
    problems = []
    if provisioner.template is None:
        problems.append(Problem("the provisioner has no readable certificate template", _template_lines()))
    elif _squeeze(_CRL_LINE.sub("", provisioner.template)) != _squeeze(DEVICE_TEMPLATE):
        problems.append(Problem("the provisioner's certificate template is not the bridge's", _template_lines()))
    if not provisioner.disable_renewal:
        lines = '"claims": {"disableRenewal": true}'
        problems.append(Problem("the CA renews certificates without asking the bridge", lines))
    longest = provisioner.max_duration
    if lifetime is not None and longest is not None and longest < lifetime:
        lines = f'"claims": {{"maxTLSCertDuration": "{go_duration(lifetime)}"}}'
        problems.append(Problem(f"certificates may live {go_duration(longest)} only", lines))
    return tuple(problems)


def require_ours(provisioner: Provisioner, *, lifetime: timedelta | None = None) -> None:
    """Raise CaMisconfigured with every problem and its lines, unless the device provisioner is ours."""
    problems = judge(provisioner, lifetime=lifetime)
    if problems:
        raise CaMisconfigured(
            f"provisioner {provisioner.name!r}: " + "; ".join(problem.what for problem in problems),
            check="change the provisioner in ca.json and restart step-ca, or accept it with STEP_CA_PROFILE=plain:\n"
            + "\n".join(problem.lines for problem in problems),
        )


def _squeeze(template: str) -> str:
    return " ".join(template.split())


def _template_lines() -> str:
    return '"options": {"x509": {"template": ' + json.dumps(DEVICE_TEMPLATE) + "}}"
