"""``iot-enroll``: the agent's command line.

Responsible for arguments, for printing events, and for turning the outcome into an exit code: the one place
where that happens on the device. Slow parts are imported only once the configuration is known to be sound.

Exit codes of ``run`` and ``renew``: 0 enrolled and accepted by the broker (or none is named), 1 stopped for good,
2 usage or configuration, 75 not now. Of ``status``: 0 a valid enrollment lies in the folder, 1 none does.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TextIO

from enroll import config, events
from enroll.errors import (
    EXIT_DONE,
    EXIT_FAILED,
    EXIT_TRY_AGAIN,
    EnrollError,
    exit_code,
)
from enroll.events import Event
from enroll.printable import printable

_WIDTH: Final = 100
"""Columns of the help text."""


def main(arguments: Sequence[str] | None = None, environment: Mapping[str, str] | None = None) -> int:
    """Run the command line and return its exit code (usage errors exit at once with 2)."""
    chosen = _parser().parse_args(arguments)
    env = dict(os.environ if environment is None else environment)
    env |= {name: value for name in config.VARIABLES if (value := getattr(chosen, name, None)) is not None}
    command: Callable[[Mapping[str, str], argparse.Namespace], int] = chosen.command
    try:
        return command(env, chosen)
    except EnrollError as e:
        return _stop(_printer(chosen.json), exit_code(e), e.code, str(e), as_json=chosen.json)
    except KeyboardInterrupt:
        text = "interrupted; nothing is lost, run it again"
        return _stop(_printer(chosen.json), EXIT_TRY_AGAIN, "interrupted", text, as_json=chosen.json)
    except Exception as e:  # noqa: BLE001 - a mistake of ours must not strand a device that nobody can reach
        from traceback import print_exc  # noqa: PLC0415 - only here

        print_exc()
        text = f"an error in iot-enroll itself, {type(e).__name__}: {printable(str(e))}; please report it"
        return _stop(_printer(chosen.json), EXIT_TRY_AGAIN, "internal", text, as_json=chosen.json)


def _run(environment: Mapping[str, str], chosen: argparse.Namespace) -> int:
    settings = config.load(environment)
    from enroll import running  # noqa: PLC0415 - a wrong configuration is told before anything slow is imported

    report = _printer(chosen.json)
    running.run(settings, environment, report, renew_now=chosen.renew_now, stay=chosen.stay)
    report(events.done(EXIT_DONE))
    return EXIT_DONE


def _status(environment: Mapping[str, str], chosen: argparse.Namespace) -> int:
    folder, run_dir = config.folder_from(environment), config.run_dir_from(environment)
    if chosen.serve is not None:
        from enroll.status import page  # noqa: PLC0415 - as above

        page.serve(chosen.serve, folder, run_dir, config.interface_from(environment))
        return EXIT_DONE
    from enroll.status import lastrun  # noqa: PLC0415 - as above
    from enroll.status.report import inspect  # noqa: PLC0415
    from enroll.trust.clock import SystemClock  # noqa: PLC0415

    status = inspect(folder, SystemClock().now())
    last = lastrun.read(run_dir)
    if chosen.json:
        print(json.dumps({**status.to_json(), "last_run": last.to_json() if last else None}))
    else:
        print("\n".join([*status.sentences(), *([last.sentence()] if last else [])]))
    return EXIT_DONE if status.enrolled else EXIT_FAILED


def _reset(environment: Mapping[str, str], chosen: argparse.Namespace) -> int:
    from enroll import running  # noqa: PLC0415 - as above

    folder = config.folder_from(environment)
    removed, tunnel = running.forget(environment)
    if chosen.json:
        print(json.dumps({"folder": str(folder), "removed": removed, "tunnel": tunnel}))
    elif removed:
        print(f"removed {', '.join(removed)} from {folder}; {tunnel}")
        print("Next: an operator runs `iot-bridge re-enroll ID`, then `iot-enroll run` here makes a new identity.")
    else:
        print(f"{folder} holds no identity; {tunnel}")
    return EXIT_DONE


def _inventory(_environment: Mapping[str, str], _chosen: argparse.Namespace) -> int:
    from enroll import inventory  # noqa: PLC0415 - as above

    seen = inventory.read()
    print(json.dumps({"hardware": dict(seen.hardware), "network": dict(seen.network)}, indent=2))
    return EXIT_DONE


def _printer(as_json: bool) -> Callable[[Event], None]:
    def as_line(event: Event) -> None:
        _tell(json.dumps(event.to_json()) if as_json else event.sentence, sys.stdout)

    return as_line


def _stop(report: Callable[[Event], None], status: int, code: str, why: str, *, as_json: bool) -> int:
    if as_json:
        report(events.stopped(status, code, why))
    hint = " (try again later)" if status == EXIT_TRY_AGAIN else ""
    _tell(f"iot-enroll: {why}{hint}", sys.stderr)
    return status


def _tell(line: str, stream: TextIO) -> None:
    """Print it; a log on a full disk, or one that nobody reads any more, must not keep the device from its work."""
    encoding = stream.encoding or "ascii"
    try:
        print(line.encode(encoding, "backslashreplace").decode(encoding), file=stream, flush=True)
    except OSError:  # what is still buffered would fail once more at the end, and change the exit code
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


class _Help(argparse.RawDescriptionHelpFormatter):
    """Help of one width: argparse makes a formatter for every argument, and each would ask for the terminal's."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=_WIDTH)


def _parser() -> argparse.ArgumentParser:
    variables = "\n".join(f"  {name:26} {meaning}" for name, meaning in config.VARIABLES.items())
    parser = argparse.ArgumentParser(
        prog="iot-enroll",
        allow_abbrev=False,  # --voucher must not be taken for --voucher-file and end in a message
        description="Gives this device its identity, connects it, and keeps it renewed.",
        epilog=f"environment:\n{variables}\n\n"
        "exit codes: 0 done, 1 failed for good, 2 usage or configuration, 75 try again",
        formatter_class=_Help,
    )
    commands = parser.add_subparsers(required=True, metavar="run|renew|status|reset|inventory")
    run = _command(commands, "run", "enroll or renew if need be, connect, raise the tunnel", _run)
    renew = _command(commands, "renew", "the same, and renew the certificate now", _run)
    for command, renew_now in ((run, False), (renew, True)):
        for flag, variable in config.FLAGS.items():
            help_text = f"{variable}: {config.VARIABLES[variable]}"
            command.add_argument(flag, dest=variable, metavar="VALUE", help=help_text)
        command.add_argument("--json", action="store_true", help="print JSON Lines, one event a line")
        command.add_argument("--stay", action="store_true", help="for demonstrations: stay connected until SIGTERM")
        command.set_defaults(renew_now=renew_now)
    text = "tell what lies in the folder; 0 if a valid enrollment does, else 1"
    status = _command(commands, "status", text, _status)
    status.add_argument("--serve", metavar="ADDRESS", help="serve it, read-only, at unix:/path or 127.0.0.1:port")
    reset = _command(commands, "reset", "forget the identity, keep the id; the next run makes a new one", _reset)
    for command in (status, reset):
        command.add_argument("--certs-dir", dest="CERTS_DIR", metavar="VALUE", help="CERTS_DIR: the folder")
        command.add_argument("--json", action="store_true", help="print one JSON object")
    shown = _command(commands, "inventory", "show what the bridge is told of this machine", _inventory)
    shown.set_defaults(json=True)
    return parser


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    text: str,
    run: Callable[[Mapping[str, str], argparse.Namespace], int],
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, allow_abbrev=False, help=text, description=text, formatter_class=_Help)
    parser.set_defaults(command=run)
    return parser
