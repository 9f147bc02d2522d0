"""`make real`: real servers as processes of this machine, and the bridge on them, until Ctrl-C.

step-ca, hawkBit, Mosquitto with a fresh CRL, PostgreSQL, and a WireGuard server in network namespaces with
`iot-bridge wireguard sync` beside it. ThingsBoard comes from no package registry: it is off here, Mosquitto is the
door, and `connect_events` tells the bridge of connects as ThingsBoard's rule chain would.

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
from pathlib import Path

from ca.standin.files import private_folder, write_private
from compose.real.connect_events import ConnectEvents
from compose.real.crl_file import CrlFile, server_certificate
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
from compose.real.wireguard_namespaces import Namespaces, wireguard_namespaces
from wireguard.errors import WireGuardError

BIN = Path(sys.executable).parent
_BRIDGE_SECONDS = 30.0
_WANTED_PORT = 8443
_CRL_SECONDS = 2.0


def run(folder: Path) -> None:
    """Start everything, say how to use it, stay until interrupted, end everything.

    :raises ServerFailed: a server did not start; what ran before it is ended.
    """
    private_folder(folder)
    for part in ("bridge-data", "wg-data"):  # they belong to the registry, which begins anew
        shutil.rmtree(folder / part, ignore_errors=True)
    with contextlib.ExitStack() as ending:
        ca = ending.enter_context(real_step_ca(folder / "step-ca"))
        print(f"step-ca      {ca.url}", flush=True)
        hawkbit = ending.enter_context(RealHawkbit(folder / "hawkbit"))
        print(f"hawkBit      {hawkbit.url}  (admin/admin)", flush=True)
        database = ending.enter_context(RealPostgresql())
        print(f"PostgreSQL   port {database.port}", flush=True)
        crl, broker = _broker(ending, ca, folder)
        print(f"Mosquitto    mqtts://localhost:{broker.port}", flush=True)
        road = ending.enter_context(wireguard_namespaces())
        print(f"WireGuard    {road.endpoint}, namespace {road.server.namespace}", flush=True)
        port = _WANTED_PORT if not answers(_WANTED_PORT) else free_port()
        variables = _variables(ca, hawkbit, database.create_database("bridge"), road, folder)
        _write_environment(folder / "environment", variables)
        bridge = _started(ending, "bridge", ["serve", "--port", str(port)], variables, folder)
        bridge.wait_until((folder / "bridge-data" / "run.json").exists, _BRIDGE_SECONDS)
        _started_beside(ending, road, variables, folder)
        hook = f"https://localhost:{port}/webhooks/thingsboard"
        events = ConnectEvents(broker, hook, variables["BRIDGE_WEBHOOK_SECRET"], ca.anchor.root_pem)
        _background(ending, events.watch)
        _background(ending, crl.watch)
        stay_until_interrupted(_advice(folder, port, ca, broker, road))


def _broker(ending: contextlib.ExitStack, ca: RealStepCa, folder: Path) -> tuple[CrlFile, RealMosquitto]:
    files = private_folder(folder / "mosquitto")
    certificate, key, anchors = files / "server.crt", files / "server.key", files / "ca.pem"
    chain_pem, key_pem = server_certificate(ca.hierarchy, "localhost")
    write_private(certificate, chain_pem)
    write_private(key, key_pem)
    write_private(anchors, ca.hierarchy.issuing.pem + ca.hierarchy.intermediate.pem + ca.hierarchy.root.pem)
    crl = CrlFile(f"{ca.url}/1.0/crl", ca.anchor.root_pem, files / "crl.pem", every=_CRL_SECONDS)
    crl.refresh()
    broker = ending.enter_context(RealMosquitto(files, anchors, crl.path, certificate, key))
    crl.changed = broker.reload
    return crl, broker


def _variables(ca: RealStepCa, hawkbit: RealHawkbit, database: str, road: Namespaces, folder: Path) -> dict[str, str]:
    user, password = BRIDGE
    return {
        "BRIDGE_DATA": str(private_folder(folder / "bridge-data")),
        "BRIDGE_DATABASE_URL": database,
        "BRIDGE_ADMISSION": "registered",
        "BRIDGE_PUBLIC_HOST": "localhost",
        "BRIDGE_WEBHOOK_SECRET": secrets.token_urlsafe(24),
        "STEP_CA_URL": ca.url,
        "STEP_CA_FINGERPRINT": str(ca.fingerprint),
        "STEP_CA_PROVISIONER_NAME": DEVICE_PROVISIONER,
        "STEP_CA_PROVISIONER_PASSWORD": PASSWORD,
        "STEP_CA_SERVER_PROVISIONER_NAME": SERVER_PROVISIONER,
        "STEP_CA_SERVER_PROVISIONER_PASSWORD": PASSWORD,
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
