"""What the device demands of its own certificate before it believes in it.

Responsible for the leaf alone: own key, own name, client authentication and nothing of a server.
Not responsible for who signed it and when (``enroll.trust.paths``).
"""

from __future__ import annotations

import hashlib

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from enroll.errors import AnswerRejectedError
from enroll.printable import printable


def check(leaf: x509.Certificate, device_id: str, spki_sha256: str) -> None:
    """Check that the leaf is this device's, and for clients only.

    :param spki_sha256: lower-case hex digest of the device's own SubjectPublicKeyInfo.
    :raises AnswerRejectedError: names the one thing that does not hold.
    """
    if spki_of(leaf) != spki_sha256:
        raise AnswerRejectedError("the certificate carries another key than this device's")
    try:
        _check_name(leaf, device_id)
        _check_usage(leaf)
    except ValueError as e:
        raise AnswerRejectedError("the certificate's subject or extensions are malformed") from e


def spki_of(leaf: x509.Certificate) -> str:
    """Return the lower-case hex SHA-256 of the certificate's SubjectPublicKeyInfo.

    :raises AnswerRejectedError: a key of an unknown kind.
    """
    try:
        key = leaf.public_key()
    except (ValueError, UnsupportedAlgorithm) as e:
        raise AnswerRejectedError("the certificate carries a key of an unknown kind") from e
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()


def _check_name(leaf: x509.Certificate, device_id: str) -> None:
    names = [a.value for a in leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    if names != [device_id]:
        raise AnswerRejectedError(f"the certificate names {printable(str(names), 100)}, not {device_id!r}")
    try:
        san = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound as e:
        raise AnswerRejectedError("the certificate has no subject alternative name") from e
    if list(san) != [x509.DNSName(device_id)]:
        raise AnswerRejectedError(f"the certificate's alternative names are not exactly DNS:{device_id}")


def _check_usage(leaf: x509.Certificate) -> None:
    extensions = leaf.extensions
    try:
        usages = set(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    except x509.ExtensionNotFound as e:
        raise AnswerRejectedError("the certificate does not say that it is for client authentication") from e
    if ExtendedKeyUsageOID.CLIENT_AUTH not in usages:
        raise AnswerRejectedError("the certificate is not for client authentication")
    if usages & {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE}:
        raise AnswerRejectedError(
            "the certificate could stand for a server (serverAuth); "
            "the operator must give the CA's provisioner a template for clients only"
        )
    try:
        constraints = extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        return
    if constraints.ca:
        raise AnswerRejectedError("the certificate is a CA certificate")
