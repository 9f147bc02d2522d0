"""The device: `iot-enroll` as a process with a folder of its own, and what lies in that folder afterwards."""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from compose.demo.processes import Bridge, Ended, run
from compose.demo.screen import Untrue

_SECRETS = ("device.key", "wg.key", "wg0.conf")


@dataclass(frozen=True, slots=True)
class Device:
    """A device that knows the bridge's URL, the root's fingerprint and its own id, and nothing else."""

    id: str
    folder: Path
    bridge: Bridge

    def first_boot(self, folder: Path | None = None, budget: int = 30) -> Ended:
        """Run `iot-enroll run --json` to its end, in this folder or another."""
        return self._agent("run", folder, budget)

    def renew(self) -> Ended:
        """Run `iot-enroll renew --json` to its end."""
        return self._agent("renew", None, 30)

    def _agent(self, command: str, folder: Path | None, budget: int) -> Ended:
        certificates = folder or self.folder
        certificates.mkdir(mode=0o700, exist_ok=True)
        known = {
            "BRIDGE_API_URL": self.bridge.url,
            "STEP_CA_FINGERPRINT": self.bridge.root_sha256,
            "DEVICE_ID": self.id,
            "CERTS_DIR": str(certificates),
            # Never an interface on this machine: the demonstration raises it in a namespace, where that is allowed.
            "ENROLL_TUNNEL": "none",
            "ENROLL_BUDGET": str(budget),
            "PATH": os.environ.get("PATH", os.defpath),
        }
        return run("iot-enroll", command, "--json", variables=known, cwd=certificates)

    def chain(self) -> list[x509.Certificate]:
        """Return leaf, issuing CA and its issuers up to the pinned root, each signature checked.

        :raises Untrue: a file is missing, a signature does not hold, or the end is not the pinned root.
        """
        names = ("device.crt", "ca-chain.crt", "root.crt")
        try:
            pem = b"".join((self.folder / name).read_bytes() for name in names)
        except OSError as e:
            raise Untrue(f"the device's folder lacks a file: {e}") from e
        found = x509.load_pem_x509_certificates(pem)
        for subject, issuer in pairwise(found):
            try:
                subject.verify_directly_issued_by(issuer)
            except (ValueError, TypeError, InvalidSignature) as e:
                raise Untrue(f"{name_of(subject)} is not issued by {name_of(issuer)}") from e
        if found[-1].fingerprint(hashes.SHA256()).hex() != self.bridge.root_sha256:
            raise Untrue("the chain does not end at the pinned root")
        return found

    def require_private_files(self) -> None:
        """Check that keys are readable to their owner only.

        :raises Untrue: one is not there, or is readable to others.
        """
        for name in _SECRETS:
            file = self.folder / name
            if not file.exists() or file.stat().st_mode & 0o077:
                raise Untrue(f"{name} is missing or readable to others")

    def require_flag_last(self) -> None:
        """Check that the flag is the youngest file: it stands for all the others.

        :raises Untrue: a file was written after it.
        """
        flag = (self.folder / "enrolled").stat().st_mtime_ns
        late = [file.name for file in self.folder.iterdir() if file.stat().st_mtime_ns > flag]
        if late:
            raise Untrue(f"written after the flag: {', '.join(late)}")

    def post_with_another_key(self) -> tuple[int, Any]:
        """Ask for the same id with a key made just now; return status and problem document."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.id)])
        csr = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
        pem = csr.public_bytes(serialization.Encoding.PEM).decode("ascii")
        context = ssl.create_default_context(cafile=self.folder / "root.crt")
        with httpx.Client(verify=context, trust_env=False, timeout=20) as client:
            answer = client.post(f"{self.bridge.url}/devices/{self.id}/enroll", json={"csr_pem": pem})
        return answer.status_code, answer.json()


def name_of(certificate: x509.Certificate) -> str:
    """Return the subject as openssl prints it."""
    return ", ".join(f"{one.rfc4514_attribute_name} = {one.value!s}" for one in certificate.subject)
