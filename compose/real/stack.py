"""`make real`: real servers as processes of this machine, and the bridge on them, until Ctrl-C.

step-ca, hawkBit, PostgreSQL, Mosquitto as a second MQTT door that checks step-ca's CRL, and a WireGuard server in
network namespaces with `iot-bridge wireguard sync` beside it. ThingsBoard alone is the project's stand-in: no package
registry carries the real one.

    .venv/bin/python compose/real/stack.py [FOLDER]

Needs what `compose/real/check.py` asks for. Everything listens on loopback or in namespaces of its own, is kept in
FOLDER (default .real/stack; only step-ca goes on where it was, all else begins anew) and is ended by process id.
"""

import argparse
import contextlib
import secrets
import shlex
import shutil
import sys
import threading
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

from ca.standin.files import private_folder, write_private
from ca.standin.signing import Signer
from compose.real.crl_file import CrlFile
from compose.real.hawkbit_server import BRIDGE, RealHawkbit
from compose.real.mosquitto import RealMosquitto
from compose.real.owned_process import (
    OwnedProcess,
    ServerFailed,
    answers,
    end_in_order_when_terminated,
    free_port,
    stay_until_interrupted,
)
from compose.real.postgresql import RealPostgresql
from compose.real.step_ca import (
    DEVICE_PROVISIONER,
    PASSWORD,
    PROJECT,
    SERVER_PROVISIONER,
    RealStepCa,
    StepCaFailed,
    real_step_ca,
)
from compose.real.thingsboard_standin import Door, thingsboard_standin
from compose.real.wireguard_namespaces import Namespaces, wireguard_namespaces
from thingsboard.standin import EmbeddedThingsBoard
from wireguard.errors import WireGuardError

BIN = Path(sys.executable).parent
_BRIDGE_SECONDS = 30.0
_WANTED_PORT = 8443
_CRL_SECONDS = 2.0
_TENANT = ("tenant@example.com", secrets.token_urlsafe(24))
_SECRET = secrets.token_urlsafe(24)


def run(folder: Path) -> None:
    """Start everything, say how to use it, stay until interrupted, end everything.

    :raises ServerFailed: a server did not start; what ran before it is ended.
    """
    private_folder(folder)
    for part in ("bridge-data", "wg-data"):  # they belong to the registry, which begins anew
        shutil.rmtree(folder / part, ignore_errors=True)
    port = free_port() if answers(_WANTED_PORT) else _WANTED_PORT
    with contextlib.ExitStack() as ending:
        ca = ending.enter_context(real_step_ca(folder / "step-ca"))
        print(f"step-ca      {ca.url}", flush=True)
        hawkbit = ending.enter_context(RealHawkbit(folder / "hawkbit"))
        print(f"hawkBit      {hawkbit.url}  (admin/admin)", flush=True)
        database = ending.enter_context(RealPostgresql())
        print(f"PostgreSQL   port {database.port}", flush=True)
        certificate = _server_certificate(ca, folder / "mqtt")
        crl, broker = _mosquitto(ending, ca, certificate, folder)
        print(f"Mosquitto    mqtts://localhost:{broker.port}", flush=True)
        door = Door(folder / "thingsboard", *certificate, ca.anchor, *_TENANT, f"https://localhost:{port}", _SECRET)
        thingsboard = ending.enter_context(thingsboard_standin(door))
        print(f"ThingsBoard  {thingsboard.rest_url}, mqtts://localhost:{thingsboard.mqtt_port}  (STAND-IN)", flush=True)
        road = ending.enter_context(wireguard_namespaces())
        print(f"WireGuard    {road.endpoint}, namespace {road.server.namespace}", flush=True)
        variables = _variables(ca, hawkbit, thingsboard, road, folder)
        variables |= {"BRIDGE_DATABASE_URL": database.create_database("bridge")}
        _write_environment(folder / "environment", variables)
        bridge = _started(ending, "bridge", ["serve", "--port", str(port)], variables, folder)
        bridge.wait_until((folder / "bridge-data" / "run.json").exists, _BRIDGE_SECONDS)
        _started_beside(ending, road, variables, folder)
        _background(ending, crl.watch)
        stay_until_interrupted(_advice(folder, port, ca, broker, road))


def _server_certificate(ca: RealStepCa, folder: Path) -> tuple[Path, Path]:
    """Certify localhost for the MQTT doors; return files of chain and key."""
    names = ("localhost", "127.0.0.1")
    made = Signer(ca.hierarchy).server_certificate(names, datetime.now(UTC), timedelta(days=30))
    certificate, key = private_folder(folder) / "server.crt", folder / "server.key"
    write_private(certificate, made.chain_pem.encode())
    write_private(key, made.key_pem.encode())
    return certificate, key


def _mosquitto(
    ending: contextlib.ExitStack, ca: RealStepCa, certificate: tuple[Path, Path], folder: Path
) -> tuple[CrlFile, RealMosquitto]:
    files = private_folder(folder / "mosquitto")
    anchors = files / "ca.pem"
    write_private(anchors, ca.hierarchy.issuing.pem + ca.hierarchy.intermediate.pem + ca.hierarchy.root.pem)
    crl = CrlFile(f"{ca.url}/1.0/crl", ca.anchor.root_pem, files / "crl.pem", every=_CRL_SECONDS)
    try:
        crl.refresh()
    except OSError as error:
        raise ServerFailed(f"step-ca gives no CRL: {error}; its log: {ca.folder / 'step-ca.log'}") from error
    broker = ending.enter_context(RealMosquitto(files, anchors, crl.path, *certificate))
    crl.changed = broker.reload
    return crl, broker


def _variables(
    ca: RealStepCa, hawkbit: RealHawkbit, thingsboard: EmbeddedThingsBoard, road: Namespaces, folder: Path
) -> dict[str, str]:
    user, password = BRIDGE
    return {
        "BRIDGE_DATA": str(private_folder(folder / "bridge-data")),
        "BRIDGE_ADMISSION": "registered",
        "BRIDGE_PUBLIC_HOST": "localhost",
        "BRIDGE_WEBHOOK_SECRET": _SECRET,
        "STEP_CA_URL": ca.url,
        "STEP_CA_FINGERPRINT": str(ca.fingerprint),
        "STEP_CA_PROVISIONER_NAME": DEVICE_PROVISIONER,
        "STEP_CA_PROVISIONER_PASSWORD": PASSWORD,
        "STEP_CA_SERVER_PROVISIONER_NAME": SERVER_PROVISIONER,
        "STEP_CA_SERVER_PROVISIONER_PASSWORD": PASSWORD,
        "THINGSBOARD_URL": thingsboard.rest_url,
        "THINGSBOARD_USERNAME": _TENANT[0],
        "THINGSBOARD_PASSWORD": _TENANT[1],
        "THINGSBOARD_MQTT_HOST": thingsboard.mqtt_host,
        "THINGSBOARD_MQTT_PORT": str(thingsboard.mqtt_port),
        "HAWKBIT_URL": hawkbit.url,
        "HAWKBIT_USERNAME": user,
        "HAWKBIT_PASSWORD": password,
        "WG_SUBNET": str(road.pool),
        "WG_SERVER_ENDPOINT": str(road.endpoint),
        "WG_SERVER_PUBLIC_KEY": str(road.server_public_key),
        "WG_DATA_DIR": str(private_folder(folder / "wg-data")),
    }


def _write_environment(path: Path, variables: Mapping[str, str]) -> None:
    lines = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items())
    write_private(path, lines.encode())


def _started(
    ending: contextlib.ExitStack, name: str, arguments: list[str], variables: Mapping[str, str], folder: Path
) -> OwnedProcess:
    command = [str(BIN / "iot-bridge"), *arguments]
    process = OwnedProcess(f"iot-bridge ({name})", command, folder / f"{name}.log", folder, environment=variables)
    process.start()
    ending.callback(process.stop)
    return process


def _started_beside(ending: contextlib.ExitStack, road: Namespaces, variables: Mapping[str, str], folder: Path) -> None:
    sync = [str(BIN / "iot-bridge"), "wireguard", "sync", "--interface", str(road.server_interface)]
    command = ["ip", "netns", "exec", road.server.namespace, *sync, "--folder", variables["WG_DATA_DIR"]]
    process = OwnedProcess("iot-bridge wireguard sync", command, folder / "wireguard-sync.log", folder)
    process.start()
    ending.callback(process.stop)


def _background(ending: contextlib.ExitStack, watch: object) -> None:
    stop = threading.Event()
    thread = threading.Thread(target=watch, args=(stop,), daemon=True)  # type: ignore[arg-type]
    thread.start()
    ending.callback(thread.join, 10)
    ending.callback(stop.set)


def _advice(folder: Path, port: int, ca: RealStepCa, broker: RealMosquitto, road: Namespaces) -> str:
    device = folder / "demo-1"
    return f"""iot-bridge   https://localhost:{port}  (log: {folder / "bridge.log"})

In another terminal, in {PROJECT}:
  . {folder / "environment"}; export PATH="$PWD/.venv/bin:$PATH"
  iot-bridge config check
  iot-bridge device register demo-1
  iot-enroll run --bridge-url https://localhost:{port} --fingerprint {ca.fingerprint} \\
    --device-id demo-1 --certs-dir {device} --tunnel none
  cat {device}/device.crt {device}/ca-chain.crt > {device}/chain.pem
  mosquitto_pub -h localhost -p {broker.port} -i demo-1 --cafile {device}/root.crt \\
    --cert {device}/chain.pem --key {device}/device.key -t hello -m world
  cp {device}/wg0.conf /tmp/{road.client_interface}.conf
  ip netns exec {road.client.namespace} env WG_QUICK_USERSPACE_IMPLEMENTATION=wireguard-go \\
    wg-quick up /tmp/{road.client_interface}.conf
  ip netns exec {road.client.namespace} ping -c 2 {road.pool.server_address}
  iot-bridge decommission demo-1 --wait

Ctrl-C ends everything."""


def main() -> int:
    """Run until interrupted; return the exit code."""
    parser = argparse.ArgumentParser(description="The real servers and the bridge, in the foreground.")
    parser.add_argument("folder", type=Path, nargs="?", default=PROJECT / ".real" / "stack")
    try:
        run(parser.parse_args().folder.resolve())
    except (ServerFailed, StepCaFailed, WireGuardError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    end_in_order_when_terminated()
    sys.exit(main())
