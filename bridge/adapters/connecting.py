"""From settings to the four systems: clients made, first trust taken, what the operator configured judged at start."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import httpx
from pydantic import SecretStr

from bridge.adapters.authority import StepCaAuthority
from bridge.adapters.folders import shared_folder
from bridge.adapters.platform import ThingsBoardPlatform
from bridge.adapters.tunnels import SharedFolder, TunnelTerms
from bridge.adapters.updates import HawkbitServer
from bridge.config import Settings
from bridge.errors import CaUnreachable, Misconfigured
from bridge.model.identity import Fingerprint
from bridge.ports.runtime import Clock, Randomness
from ca.bootstrap import context_for, fetch_trust
from ca.client import StepCaClient
from ca.errors import CaError
from ca.errors import CaUnreachable as StepCaUnreachable
from ca.models import Fingerprint as CaFingerprint
from ca.models import Provisioner, ServerCertificate, TrustAnchor
from ca.provisioner_key import ProvisionerKey, decrypt_key, read_key
from ca.server_certificate import request_server_certificate
from ca.template import require_ours
from ca.token import TokenSigner
from hawkbit.client import HawkbitClient
from thingsboard.client import ThingsBoardClient

Connect = Callable[[ssl.SSLContext], AbstractAsyncContextManager[httpx.AsyncClient]]
"""Makes an HTTP client that trusts what the context trusts; only the composition knows how."""

SERVER_LIFETIME = timedelta(days=30)
"""Lifetime asked for the bridge's own HTTPS certificate."""


@dataclass(frozen=True, slots=True)
class Authority:
    """The issuing CA with what was learned of it at start."""

    port: StepCaAuthority
    client: StepCaClient
    anchor: TrustAnchor

    @property
    def root_sha256(self) -> Fingerprint:
        """What devices pin."""
        return Fingerprint(self.anchor.root_fingerprint.value)

    @property
    def issuing_sha256(self) -> Fingerprint:
        """The CA that must have issued every leaf."""
        return Fingerprint(self.anchor.issuing_fingerprint.value)


@dataclass(frozen=True, slots=True)
class Systems:
    """All systems that are switched on; ``None`` is off."""

    authority: Authority
    platform: ThingsBoardPlatform | None
    updates: HawkbitServer | None
    tunnels: SharedFolder | None
    tunnel_terms: TunnelTerms | None


@asynccontextmanager
async def connected(
    settings: Settings, connect: Connect, clock: Clock, randomness: Randomness
) -> AsyncIterator[Systems]:
    """Connect to what the settings name, until left.

    :raises Misconfigured: the CA is not the one pinned, or its provisioner is not as the bridge needs it; the text
        has the lines to add.
    :raises CaUnreachable: the CA does not answer: without it there is nothing to serve.
    """
    async with AsyncExitStack() as stack:
        authority = await _authority(settings, connect, clock, randomness, stack)
        public = await stack.enter_async_context(connect(_trusting_also(authority.anchor.root_pem)))
        yield Systems(
            authority=authority,
            platform=_platform(settings, public),
            updates=_updates(settings, public),
            tunnels=SharedFolder(shared_folder(settings.tunnel_folder)) if settings.wg_subnet else None,
            tunnel_terms=tunnel_terms(settings),
        )


def tunnel_terms(settings: Settings) -> TunnelTerms | None:
    """Return what devices are told about the VPN; ``None`` if there is none.

    :raises Misconfigured: one of the three variables cannot be read.
    """
    if settings.wg_subnet is None:
        return None
    return TunnelTerms(settings.wg_subnet, settings.wg_server_endpoint or "", settings.wg_server_public_key or "")


async def server_certificate(
    settings: Settings, authority: Authority, clock: Clock, randomness: Randomness
) -> ServerCertificate:
    """Ask the second provisioner of the CA for a certificate of ``BRIDGE_PUBLIC_HOST``.

    :raises Misconfigured: the provisioner is missing, its key cannot be read, or it refuses the name.
    """
    name = settings.step_ca_server_provisioner_name
    if name is None or settings.bridge_public_host is None:
        raise Misconfigured("set BRIDGE_PUBLIC_HOST and STEP_CA_SERVER_PROVISIONER_NAME, or BRIDGE_TLS_CERT_FILE")
    try:
        provisioner = await authority.client.provisioner(name)
        key = await _key(
            authority.client,
            provisioner,
            settings.step_ca_server_provisioner_password,
            settings.step_ca_server_provisioner_key_file,
        )
        return await request_server_certificate(
            authority.client,
            _signer(provisioner, key, authority.client.url, clock, randomness),
            authority.anchor,
            name=settings.bridge_public_host,
            lifetime=SERVER_LIFETIME,
            now=clock.now(),
        )
    except CaError as e:
        raise Misconfigured(f"STEP_CA_SERVER_PROVISIONER_NAME={name}: {e}; {e.check}") from e


async def _authority(
    settings: Settings, connect: Connect, clock: Clock, randomness: Randomness, stack: AsyncExitStack
) -> Authority:
    url, fingerprint, name = settings.step_ca_url, settings.step_ca_fingerprint, settings.step_ca_provisioner_name
    if url is None or fingerprint is None or name is None:
        raise Misconfigured("STEP_CA_URL, STEP_CA_FINGERPRINT and STEP_CA_PROVISIONER_NAME are needed")
    plain = settings.step_ca_profile == "plain"
    try:
        anchor = await fetch_trust(url, CaFingerprint.parse(fingerprint), connect)
        http = await stack.enter_async_context(connect(context_for(anchor)))
        client = StepCaClient(http, url)
        provisioner = await client.provisioner(name)
        if not plain:
            require_ours(provisioner, lifetime=settings.bridge_cert_lifetime)
        key = await _key(
            client, provisioner, settings.step_ca_provisioner_password, settings.step_ca_provisioner_key_file
        )
    except ValueError as e:
        raise Misconfigured(f"STEP_CA_FINGERPRINT: {e}") from e
    except StepCaUnreachable as e:
        raise CaUnreachable(f"STEP_CA_URL={url}: {e}; {e.check}") from e
    except CaError as e:
        raise Misconfigured(f"STEP_CA_URL={url}: {e}; {e.check}") from e
    signer = _signer(provisioner, key, url, clock, randomness)
    return Authority(StepCaAuthority(client, signer, anchor, clock, plain=plain), client, anchor)


def _signer(
    provisioner: Provisioner, key: ProvisionerKey, url: str, clock: Clock, randomness: Randomness
) -> TokenSigner:
    return TokenSigner(key, issuer=provisioner.name, url=url, clock=clock.now, randomness=randomness.octets)


async def _key(
    client: StepCaClient, provisioner: Provisioner, password: SecretStr | None, file: Path | None
) -> ProvisionerKey:
    secret = password.get_secret_value() if password is not None else None
    if file is not None:
        return read_key(provisioner, _key_text(file), secret)
    encrypted = provisioner.encrypted_key or await client.encrypted_key(provisioner.kid)
    return decrypt_key(provisioner, encrypted, secret or "")


def _key_text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as e:
        raise Misconfigured(f"the provisioner's key file {file} cannot be read: {e}") from e


def _trusting_also(root_pem: str) -> ssl.SSLContext:
    """Trust what this host trusts, and the tenant's root: a tenant's servers may have certificates of either."""
    context = ssl.create_default_context()
    context.load_verify_locations(cadata=root_pem)
    return context


def _platform(settings: Settings, http: httpx.AsyncClient) -> ThingsBoardPlatform | None:
    url, user, password = settings.thingsboard_url, settings.thingsboard_username, settings.thingsboard_password
    if url is None or user is None or password is None:
        return None
    return ThingsBoardPlatform(ThingsBoardClient(http, url, user, password.get_secret_value()))


def _updates(settings: Settings, http: httpx.AsyncClient) -> HawkbitServer | None:
    url, user, password = settings.hawkbit_url, settings.hawkbit_username, settings.hawkbit_password
    if url is None or user is None or password is None:
        return None
    return HawkbitServer(HawkbitClient(http, url, user, password.get_secret_value()))
