"""What only a real step-ca can show: other provisioners, a CA without lists, and the script that runs it."""

import os
import re
import secrets
import signal
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from ca.bootstrap import context_for
from ca.check import check_leaf
from ca.client import StepCaClient
from ca.errors import CaBadAnswer, CaMisconfigured
from ca.provisioner_key import decrypt_key, read_key
from ca.template import judge
from ca.token import TokenSigner

pytestmark = pytest.mark.real
LIFETIME = timedelta(hours=12)


def now() -> datetime:
    return datetime.now(UTC)


async def connected(running: Any) -> tuple[httpx.AsyncClient, StepCaClient]:
    http = httpx.AsyncClient(verify=context_for(running.anchor))
    return http, StepCaClient(http, running.url)


def signer(running: Any, provisioner: Any, key: Any) -> TokenSigner:
    return TokenSigner(key, issuer=provisioner.name, url=running.url, clock=now, randomness=secrets.token_bytes)


async def test_plain_profile_takes_what_step_ca_makes_without_a_template(step_ca: Any, make_device: Any) -> None:
    http, client = await connected(step_ca)
    async with http:
        provisioner = await client.provisioner("plain")
        assert len(judge(provisioner)) == 2
        key = decrypt_key(provisioner, await client.encrypted_key(provisioner.kid), step_ca.password)
        device = make_device("dev-1")
        tokens = signer(step_ca, provisioner, key)
        chain = await client.sign(device.pem, tokens.for_sign("dev-1", device.der, device.serial), LIFETIME)
        expected = replace(device.expected, lifetime=LIFETIME)
        with pytest.raises(CaBadAnswer) as caught:
            check_leaf(chain, expected, step_ca.anchor, now=now())
        assert caught.value.failed == "serial"
        with pytest.raises(CaBadAnswer) as caught:
            check_leaf(chain, replace(expected, serial=None), step_ca.anchor, now=now())
        assert caught.value.failed == "eku"
        leaf = check_leaf(chain, replace(expected, profile="plain"), step_ca.anchor, now=now())
        assert leaf.serial != device.serial


async def test_a_key_from_a_file_where_step_ca_publishes_none(step_ca: Any, make_device: Any) -> None:
    http, client = await connected(step_ca)
    async with http:
        provisioner = await client.provisioner("keyless")
        assert judge(provisioner) == ()
        assert provisioner.encrypted_key is None
        with pytest.raises(CaMisconfigured) as caught:
            await client.encrypted_key(provisioner.kid)
        assert "STEP_CA_PROVISIONER_KEY_FILE" in caught.value.check
        file = step_ca.provisioners["keyless"].encrypted_key
        opened = read_key(provisioner, file, step_ca.password)
        pem = opened.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        device = make_device("dev-1")
        token = signer(step_ca, provisioner, read_key(provisioner, pem)).for_sign("dev-1", device.der, device.serial)
        chain = await client.sign(device.pem, token, LIFETIME)
        expected = replace(device.expected, lifetime=LIFETIME)
        assert check_leaf(chain, expected, step_ca.anchor, now=now()).serial == device.serial


async def test_a_ca_without_lists_is_told_the_lines(step_ca_script: Any, tmp_path: Path) -> None:
    with step_ca_script.real_step_ca(tmp_path / "ca", crl=False) as running:
        http, client = await connected(running)
        async with http:
            with pytest.raises(CaMisconfigured, match="no revocation list") as caught:
                await client.crl(running.anchor.issuing_ca)
    assert '"crl": {"enabled": true' in caught.value.check


async def test_a_restart_keeps_keys_and_revocations(step_ca_script: Any, tmp_path: Path) -> None:
    for start in (1, 2):
        with step_ca_script.real_step_ca(tmp_path / "ca") as running:
            http, client = await connected(running)
            async with http:
                provisioner = await client.provisioner(running.device_provisioner)
                key = decrypt_key(provisioner, await client.encrypted_key(provisioner.kid), running.password)
                await client.revoke(start, signer(running, provisioner, key).for_revoke(start))
                serials = (await client.crl(running.anchor.issuing_ca)).serials
    assert serials == {1, 2}


def test_the_command_runs_in_the_foreground_until_told(tmp_path: Path, step_ca_script: Any) -> None:
    command = [sys.executable, step_ca_script.__file__, "run", str(tmp_path / "ca")]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        said = dict(process.stdout.readline().rstrip().split("=", 1) for _ in range(6))
        assert re.fullmatch(r"https://localhost:\d+", said["STEP_CA_URL"])
        assert re.fullmatch(r"[0-9a-f]{64}", said["STEP_CA_FINGERPRINT"])
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 0
    with pytest.raises(httpx.ConnectError):
        httpx.get(said["STEP_CA_URL"])
