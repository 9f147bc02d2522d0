"""An EC private key that signs somewhere else, in the shape the rest of the world expects.

Responsible for being taken by cryptography's builders and by PyJWT as any key of theirs, while the private
part never is in this process. Not responsible for where the signature is made.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils

from enroll.errors import StorageError

SignDigest = Callable[[bytes, str], bytes]
"""(digest, name of its algorithm such as ``sha256``) -> ECDSA signature in DER."""


class RemoteEcKey(ec.EllipticCurvePrivateKey):
    """An ECDSA key of which only the public part is here."""

    def __init__(self, public: ec.EllipticCurvePublicKey, where: str, sign_digest: SignDigest) -> None:
        self._public = public
        self._where = where
        self._sign_digest = sign_digest

    @property
    def curve(self) -> ec.EllipticCurve:
        """The key's curve."""
        return self._public.curve

    @property
    def key_size(self) -> int:
        """Bits of the curve's order."""
        return self._public.curve.key_size

    def public_key(self) -> ec.EllipticCurvePublicKey:
        """Return the public key."""
        return self._public

    def sign(self, data: Any, signature_algorithm: ec.EllipticCurveSignatureAlgorithm) -> bytes:
        """Return an ECDSA signature in DER, made elsewhere and checked here.

        :raises StorageError: the hardware does not answer, or gave a signature that does not hold.
        """
        algorithm = signature_algorithm.algorithm
        if isinstance(algorithm, utils.Prehashed):
            raise UnsupportedAlgorithm(f"a key in a {self._where} signs data, not digests of others")
        hashing = hashes.Hash(algorithm)
        hashing.update(data)
        signature = self._sign_digest(hashing.finalize(), algorithm.name)
        try:
            self._public.verify(signature, data, ec.ECDSA(algorithm))
        except InvalidSignature as e:
            raise StorageError(f"the {self._where} gave a signature that does not hold; it may be failing") from e
        return signature

    def exchange(self, *_: Any, **__: Any) -> NoReturn:
        """Refuse: the key is for signatures."""
        raise UnsupportedAlgorithm(f"a key in a {self._where} is for signatures")

    def private_numbers(self) -> NoReturn:
        """Refuse: there is nothing to give."""
        raise UnsupportedAlgorithm(f"the private key is in the {self._where}")

    def private_bytes(self, *_: Any, **__: Any) -> NoReturn:
        """Refuse: there is nothing to give."""
        raise UnsupportedAlgorithm(f"the private key is in the {self._where}")

    def __copy__(self) -> RemoteEcKey:
        return self

    def __deepcopy__(self, memo: dict[Any, Any]) -> RemoteEcKey:
        return self
