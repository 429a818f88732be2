"""The interpreter that all of it runs in."""

import os
import platform
import struct
import subprocess
import sys
import sysconfig
from dataclasses import dataclass

from engine.toolchain.finding import EVERY, Finding, Remedy
from engine.toolchain.probe import Probe

OLDEST = (3, 11)


@dataclass(frozen=True, kw_only=True)
class Interpreter:
    """What decides whether wheels fit: `machine` is the processor that Python is compiled for.

    `translated`: the processor itself is another one, as under Rosetta. `libc` is "musl" on Alpine.
    """

    version: tuple[int, int, int]
    implementation: str
    machine: str
    system: str
    bits: int
    translated: bool
    libc: str
    path: str


def this() -> Interpreter:
    """The interpreter that runs this."""
    return Interpreter(
        version=sys.version_info[:3],
        implementation=platform.python_implementation(),
        machine=_machine(),
        system=sys.platform,
        bits=8 * struct.calcsize("P"),
        translated=_translated(),
        libc="musl" if "musl" in (sysconfig.get_config_var("HOST_GNU_TYPE") or "") else "",
        path=sys.executable,
    )


def _machine() -> str:
    return platform.machine() or "unknown"


def _translated() -> bool:
    """Whether the system translates this program's instructions."""
    if sys.platform == "darwin":
        # Absent on Intel Macs, 1 in a process under Rosetta, 0 in a native one on Apple silicon.
        asked = subprocess.run(
            ["/usr/sbin/sysctl", "-n", "sysctl.proc_translated"], capture_output=True, text=True, check=False
        )
        return asked.stdout.strip() == "1"
    if sys.platform == "win32":
        compiled_for = sysconfig.get_platform().removeprefix("win-")
        return compiled_for == "amd64" and "ARM64" in os.environ.get("PROCESSOR_IDENTIFIER", "").upper()
    return False


def judge(probe: Probe, python: Interpreter) -> Finding:
    """What `python` is good for."""
    found = f"{python.implementation} {'.'.join(map(str, python.version))}, {python.machine}, {python.path}"
    if python.version[:2] < OLDEST:
        return probe.finding(
            "broken",
            found,
            why="mlc-wizard and the packages that it needs are made for later versions.",
            remedy=Remedy(told="Make a new environment with Python 3.11 or later; install mlc-wizard there."),
        )
    if python.translated and python.system == "darwin":
        return probe.finding(
            "broken",
            f"{found}, under Rosetta on Apple silicon",
            why="Rosetta translates a Python for Intel; TVM has no wheels for Intel Macs, so nothing can be "
            "compiled in it. Weights and configuration can be made.",
            remedy=Remedy(
                told="Install a Python for Apple silicon (python.org, or Homebrew in /opt/homebrew), from a "
                "terminal that does not itself run under Rosetta, and make a new environment with it. "
                "It must print arm64:",
                commands=('python3 -c "import platform; print(platform.machine())"',),
            ),
        )
    lacking = _without_wheels(python)
    if lacking:
        return probe.finding(
            "broken",
            found,
            why=f"TVM has no wheels for {lacking}, so the embedded backend compiles nothing here. Weights "
            "and configuration can be made.",
            remedy=Remedy(
                told="Compile on another machine, or in a container: weights are the same for all."
            ),
        )
    return probe.finding("ok", found)


def _without_wheels(python: Interpreter) -> str:
    if python.bits != 64:
        return "32 bit Python"
    if python.system == "darwin" and python.machine == "x86_64":
        return "Intel Macs"
    if python.system == "win32" and python.machine.upper() == "ARM64":
        return "Windows on ARM"
    return "musl, the C library of Alpine" if python.libc == "musl" else ""


PROBES = (
    Probe(
        id="python",
        group="python",
        title="Python",
        wanted="3.11 or later, 64 bit; arm64 on Apple silicon",
        why="Everything runs in it, and its processor decides which wheels fit.",
        needed_for={"embedded": (EVERY,)},
        look=lambda probe: judge(probe, this()),
    ),
)
