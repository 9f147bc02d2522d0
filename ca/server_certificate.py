"""The bridge's own server certificate, from the second provisioner of the same CA.

That provisioner's template allows one name and server authentication only, so its key can make no device. Not
responsible for serving the certificate nor for knowing when to renew it.
"""

from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import NameOID

from ca.check import Expected, check_leaf, general_name
from ca.client import StepCaClient
from ca.models import ServerCertificate, TrustAnchor
from ca.token import TokenSigner


async def request_server_certificate(
    client: StepCaClient,
    signer: TokenSigner,
    anchor: TrustAnchor,
    *,
    name: str,
    lifetime: timedelta,
    now: datetime,
) -> ServerCertificate:
    """Make an EC P-256 key, ask for a certificate of ``name`` (BRIDGE_PUBLIC_HOST) and check it.

    ``signer`` is that of the server provisioner. What is returned names exactly ``name``, is for server
    authentication only, holds the fresh key and was issued by ``anchor``'s issuing CA. Raises what
    ``sign`` and ``check_leaf`` raise.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    csr = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .add_extension(x509.SubjectAlternativeName([general_name(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    token = signer.for_server(name, csr.public_bytes(Encoding.DER))
    chain = await client.sign(csr.public_bytes(Encoding.PEM).decode(), token, lifetime)
    expected = Expected(
        name=name,
        spki_der=key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        serial=None,
        lifetime=lifetime,
        purpose="server",
    )
    leaf = check_leaf(chain, expected, anchor, now=now)
    return ServerCertificate(
        chain_pem=leaf.pem + leaf.chain_pem,
        key_pem=key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
        not_before=leaf.not_before,
        not_after=leaf.not_after,
        names=(name,),
    )
