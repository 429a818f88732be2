"""What the image runs: a stage for the mlc-wizard outside, the documented command line, or mlc-wizard.

    run --mounted DIR ... PROGRAM [ARGUMENT ...]
        A program that ends when standard input closes, so with whoever started the container. Each DIR is
        a folder that was mounted and must not be empty.
    --input MODEL --output DIR [--compile] [--mlc-quant NAME] [ARGUMENT ...]
        An export; without --compile weights and configuration only. Other arguments are mlc-wizard's. Words
        before --input, such as `python export_mlc.py`, may stay: they are passed over.
    PROGRAM [ARGUMENT ...]
        A program of the image, such as python, bash, mlc_llm.
    anything else
        Arguments of mlc-wizard.

Only the standard library. Run as root, all but `run` first become the owner of the current folder, which
is the one that the caller mounted: what they write belongs to the caller. A container's first process is
spared the signals that it has no handler for, so this one stays, and hands them on.
"""

import argparse
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

QUANTIZATION = "q0f16"
"""Without --mlc-quant: the weights as most models are published."""
GRACE_SECONDS = 1
"""How long a stage may take to end: less than the client outside waits before it kills."""
EXIT_TOOLCHAIN = 3


def main(arguments: list[str]) -> None:
    """Become what `arguments` ask for."""
    if arguments[:1] == ["run"]:
        stage(arguments[1:])
    own_what_is_written()
    if "--input" in arguments or any(word.startswith("--input=") for word in arguments):
        watch(sys.executable, "-P", "-m", "tui", *export(arguments))
    if arguments and not arguments[0].startswith("-") and (program := shutil.which(arguments[0])):
        watch(program, *arguments[1:])
    watch(sys.executable, "-P", "-m", "tui", *arguments)


def stage(arguments: list[str]) -> NoReturn:
    """Run a program under mlc-wizard's supervisor."""
    parser = argparse.ArgumentParser(prog="run", allow_abbrev=False)
    parser.add_argument("--mounted", action="append", default=[], type=Path)
    parser.add_argument("program", nargs=argparse.REMAINDER)
    asked = parser.parse_args(arguments)
    for folder in asked.mounted:
        if not folder.is_dir() or not any(folder.iterdir()):
            fail(
                f"The container sees an empty folder at {folder}.",
                "Docker's daemon made one, as it does not see this machine's files: it runs elsewhere "
                "(docker context ls, DOCKER_HOST), or shares other folders only.",
                "Docker Desktop: Settings, Resources, File sharing. Inside a container that has the socket "
                "of the machine around it, use the embedded backend.",
            )
    supervisor = importlib.util.find_spec("engine.supervisor")
    assert supervisor is not None
    assert supervisor.origin is not None
    become(sys.executable, "-I", "-S", supervisor.origin, str(GRACE_SECONDS), *asked.program)


def export(arguments: list[str]) -> list[str]:
    """mlc-wizard's arguments for the documented ones; the preset they stand for is a temporary file."""
    parser = argparse.ArgumentParser(prog="mlc-compiler", allow_abbrev=False)
    parser.add_argument("--input", required=True, metavar="MODEL", help="a folder, or an id of the Hub")
    parser.add_argument("--output", required=True, metavar="DIR")
    parser.add_argument("--compile", action="store_true", help="make the library for WebGPU, too")
    parser.add_argument("--mlc-quant", default=QUANTIZATION, metavar="NAME")
    first = next(i for i, word in enumerate(arguments) if word.startswith("--"))
    asked, rest = parser.parse_known_args(arguments[first:])
    if arguments[:first]:
        sys.stderr.write(f"mlc-wizard exports in place of: {' '.join(arguments[:first])}\n")
    folder = os.path.abspath(asked.input)  # noqa: PTH100  resolve() would follow links
    is_place = os.path.isdir(folder) or asked.input.startswith((".", "/"))  # noqa: PTH112
    tables = {
        "model": {"source": folder if is_place else asked.input},
        "quantization": {"mode": asked.mlc_quant},
        "target": {"device": "webgpu", "compile": asked.compile},
        "output": {"directory": asked.output},
    }
    with tempfile.NamedTemporaryFile("w", suffix=".toml", delete=False, encoding="utf-8") as preset:
        preset.write("version = 1\n")
        for name, table in tables.items():
            # A string of JSON is one of TOML, true and false are the same words.
            rows = "".join(
                f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in table.items()
            )
            preset.write(f"[{name}]\n{rows}")
    return ["--preset", preset.name, *rest]


def own_what_is_written() -> None:
    """From root, become the owner of the current folder; with Docker Desktop and rootless that is root."""
    owner = Path.cwd().stat()
    if os.geteuid() == 0 and owner.st_uid != 0:
        os.setgroups([])
        os.setgid(owner.st_gid)
        os.setuid(owner.st_uid)


def become(*argv: str) -> NoReturn:
    """Go on as another program, which handles signals itself."""
    sys.stderr.flush()
    os.execv(argv[0], argv)  # noqa: S606  what the caller asked for


def watch(*argv: str) -> NoReturn:
    """Run another program, hand signals on to it, and end as it ends."""
    sys.stderr.flush()
    child = subprocess.Popen(argv)
    # A terminal sends ctrl+c to both itself.
    forwarded = ["SIGTERM", "SIGHUP", "SIGQUIT", *([] if sys.stdin.isatty() else ["SIGINT"])]
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for name in forwarded:
        signal.signal(getattr(signal, name), lambda number, _: child.send_signal(number))
    code = child.wait()
    sys.exit(128 - code if code < 0 else code)


def fail(what: str, why: str, remedy: str) -> NoReturn:
    """Say what is wrong, as a stage does: in words, and as a record for mlc-wizard."""
    if os.environ.get("MLC_WIZARD_RECORDS"):
        body = {"what": what, "why": why, "remedy": remedy, "exit_code": EXIT_TOOLCHAIN}
        sys.stderr.write(f"\x1e{json.dumps({'error': body})}\n")
    else:
        sys.stderr.write(f"{what}\n{why}\n{remedy}\n")
    sys.exit(EXIT_TOOLCHAIN)


if __name__ == "__main__":
    main(sys.argv[1:])
