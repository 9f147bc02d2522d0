"""The provisioner's private key (signatures first; the bodies follow)."""

from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

from ca.models import Provisioner


@dataclass(frozen=True, slots=True)
class ProvisionerKey:
    """A prepared private key with the ``kid`` and ``alg`` of its tokens."""

    key: PrivateKeyTypes = field(repr=False)
    kid: str
    alg: str


def decrypt_key(provisioner: Provisioner, encrypted_key: str, password: str | bytes) -> ProvisionerKey:
    """Decrypt the JWE; CaMisconfigured if the password is wrong or the key is another's."""
    raise NotImplementedError


def read_key(
    provisioner: Provisioner, text: str | bytes, password: str | bytes | None = None
) -> ProvisionerKey:
    """Read a PEM, JWK or JWE file's content; CaMisconfigured if it does not fit the provisioner."""
    raise NotImplementedError
