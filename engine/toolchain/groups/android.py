"""Android's native development kit."""

import os
import sys
from pathlib import Path

from engine.toolchain.finding import Finding, Remedy
from engine.toolchain.probe import Probe
from engine.toolchain.programs import ask

_HOMES = ("ANDROID_NDK", "ANDROID_NDK_HOME", "ANDROID_NDK_ROOT")
_HOST = {"darwin": "darwin-x86_64", "win32": "windows-x86_64"}.get(sys.platform, "linux-x86_64")


def _ndk(probe: Probe) -> Finding:
    compiler = os.environ.get("TVM_NDK_CC", "")
    if not compiler:
        home = next((Path(os.environ[name]) for name in _HOMES if os.environ.get(name)), None)
        if home is None:
            return probe.finding("missing", "TVM_NDK_CC is not set", remedy=_install(None))
        if not home.is_dir():
            return probe.finding(
                "missing", f"TVM_NDK_CC is not set, and {home} is no folder", remedy=_install(None)
            )
        return probe.finding("missing", f"an NDK in {home}, but TVM_NDK_CC is not set", remedy=_install(home))
    answer = ask([compiler, "--version"])
    if answer.outcome == "missing":
        return probe.finding("broken", f"TVM_NDK_CC is {compiler}, which is not there", remedy=_install(None))
    if not answer.answered:
        return probe.finding("broken", f"TVM_NDK_CC: {answer.told()}", remedy=_install(None))
    target = next(
        (line.split(":", 1)[1].strip() for line in answer.text.splitlines() if line.startswith("Target:")), ""
    )
    if target and not ("aarch64" in target and "android" in target):
        return probe.finding(
            "broken",
            f"TVM_NDK_CC compiles for {target}",
            why="Phones are AArch64; the program's name says what it compiles for.",
            remedy=_install(None),
        )
    return probe.finding("ok", f"{answer.first_line}, {compiler}")


def _install(home: Path | None) -> Remedy:
    """Set the variable; install the kit before, where `home` is None."""
    place = home or "$ANDROID_NDK"
    tools = f"{place}/toolchains/llvm/prebuilt/{_HOST}/bin/aarch64-linux-android24-clang"
    before = "" if home else "Install the NDK (in Android Studio: SDK Manager, SDK Tools, NDK). "
    line = f"set TVM_NDK_CC={tools}.cmd" if sys.platform == "win32" else f"export TVM_NDK_CC={tools}"
    return Remedy(
        told=f"{before}Name its compiler, in the shell that mlc-wizard is started from:", commands=(line,)
    )


PROBES = (
    Probe(
        id="android-ndk",
        group="android",
        title="Android NDK",
        wanted="TVM_NDK_CC: clang of an NDK, for aarch64-linux-android",
        why="The mlc_llm backend links libraries for Android with it.",
        needed_for={"mlc_llm": ("android",)},
        look=_ndk,
    ),
)
