"""``iot-enroll``: the agent's command line.

Responsible for arguments, for printing events, and for turning the outcome into an exit code: the
composition root of the device. Slow parts are imported only once the configuration is known to be sound.

Exit codes of ``run``: 0 enrolled and accepted by the broker (or none is named), 1 stopped for good, 2 usage
or configuration, 75 not now. Of ``status``: 0 a valid enrollment lies in the folder, 1 none does.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence

from enroll import config, events
from enroll.errors import (
    EXIT_DONE,
    EXIT_FAILED,
    EXIT_TRY_AGAIN,
    EnrollError,
    exit_code,
)
from enroll.events import Event


def main(arguments: Sequence[str] | None = None, environment: Mapping[str, str] | None = None) -> int:
    """Run the command line and return its exit code (usage errors exit at once with 2)."""
    chosen = _parser().parse_args(arguments)
    env = dict(os.environ if environment is None else environment)
    env |= {name: value for name in config.VARIABLES if (value := getattr(chosen, name, None)) is not None}
    command: Callable[[Mapping[str, str], bool], int] = chosen.command
    report = _printer(chosen.json)
    try:
        return command(env, chosen.json)
    except EnrollError as e:
        return _stop(report, exit_code(e), e.code, str(e), as_json=chosen.json)
    except KeyboardInterrupt:
        text = "interrupted; nothing is lost, run it again"
        return _stop(report, EXIT_TRY_AGAIN, "interrupted", text, as_json=chosen.json)


def _run(environment: Mapping[str, str], as_json: bool) -> int:
    settings = config.load(environment)
    report = _printer(as_json)

    import asyncio  # noqa: PLC0415 - a wrong configuration is told before anything slow is imported
    import random  # noqa: PLC0415

    from enroll.agent import Agent, Runtime  # noqa: PLC0415
    from enroll.clock import SystemClock  # noqa: PLC0415
    from enroll.files import PosixDisk  # noqa: PLC0415
    from enroll.tunnel import LinuxMachine  # noqa: PLC0415

    runtime = Runtime(SystemClock(), random.SystemRandom().uniform, PosixDisk(), LinuxMachine(), report)
    asyncio.run(Agent(settings, runtime).run())
    report(events.done(EXIT_DONE))
    return EXIT_DONE


def _status(environment: Mapping[str, str], as_json: bool) -> int:
    from enroll.clock import SystemClock  # noqa: PLC0415 - as above
    from enroll.status import inspect  # noqa: PLC0415

    status = inspect(config.folder_from(environment), SystemClock().now())
    if as_json:
        print(json.dumps(status.to_json()))
    else:
        print("\n".join(status.sentences()))
    return EXIT_DONE if status.enrolled else EXIT_FAILED


def _printer(as_json: bool) -> Callable[[Event], None]:
    def as_line(event: Event) -> None:
        print(json.dumps(event.to_json()) if as_json else event.sentence, flush=True)

    return as_line


def _stop(report: Callable[[Event], None], status: int, code: str, why: str, *, as_json: bool) -> int:
    if as_json:
        report(events.stopped(status, code, why))
    hint = " (try again later)" if status == EXIT_TRY_AGAIN else ""
    print(f"iot-enroll: {why}{hint}", file=sys.stderr)
    return status


def _parser() -> argparse.ArgumentParser:
    variables = "\n".join(f"  {name:26} {meaning}" for name, meaning in config.VARIABLES.items())
    parser = argparse.ArgumentParser(
        prog="iot-enroll",
        allow_abbrev=False,  # --voucher must not be taken for --voucher-file and end in a message
        description="Gives this device its identity and connects it.",
        epilog=f"environment:\n{variables}\n\n"
        "exit codes: 0 done, 1 failed for good, 2 usage or configuration, 75 try again",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="run|status")
    run = commands.add_parser("run", allow_abbrev=False, help="enroll if need be, connect, raise the tunnel")
    for flag, variable in config.FLAGS.items():
        run.add_argument(flag, dest=variable, metavar="VALUE", help=f"{variable}: {config.VARIABLES[variable]}")
    run.add_argument("--json", action="store_true", help="print JSON Lines, one event a line")
    run.set_defaults(command=_run)
    status = commands.add_parser(
        "status", allow_abbrev=False, help="tell what lies in the folder; 0 if a valid enrollment does, else 1"
    )
    status.add_argument("--certs-dir", dest="CERTS_DIR", metavar="VALUE", help="CERTS_DIR: the folder")
    status.add_argument("--json", action="store_true", help="print one JSON object")
    status.set_defaults(command=_status)
    return parser
