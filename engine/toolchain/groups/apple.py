"""Apple's tools: Xcode, as opposed to its command line tools alone, and the Metal compiler in it."""

import sys

from engine.toolchain.finding import Finding, Remedy
from engine.toolchain.probe import Probe
from engine.toolchain.programs import ask

_NEEDED = {"mlc_llm": ("metal", "iphone")}
_NOT_A_MAC = "this is not a Mac"
_ON_A_MAC = Remedy(told="Compile for Metal on a Mac. Weights and configuration can be made anywhere.")
_SWITCH = "sudo xcode-select --switch /Applications/Xcode.app"


def _xcode(probe: Probe) -> Finding:
    answer = ask(["xcode-select", "--print-path"])
    if answer.outcome == "missing" and sys.platform != "darwin":
        return probe.finding("missing", _NOT_A_MAC, remedy=_ON_A_MAC)
    install = Remedy(
        told="Install Xcode from the App Store, start it once, then:",
        commands=(_SWITCH, "xcodebuild -runFirstLaunch"),
    )
    if answer.outcome == "missing" or answer.code == 2:
        return probe.finding("missing", "no developer tools", remedy=install)
    if not answer.answered:
        return probe.finding("broken", answer.told(), remedy=install)
    place = answer.first_line
    if "CommandLineTools" in place:
        return probe.finding(
            "missing",
            f"the command line tools alone, {place}",
            why="The Metal compiler and the SDK for iPhones are parts of Xcode; the command line tools have "
            "neither.",
            remedy=install,
        )
    version = ask(["xcodebuild", "-version"])
    if not version.answered:
        return probe.finding("broken", version.told(), remedy=install)
    return probe.finding("ok", f"{version.first_line}, {place}")


def _metal(probe: Probe) -> Finding:
    answer = ask(["xcrun", "-sdk", "macosx", "metal", "--version"])
    if answer.answered:
        return probe.finding("ok", answer.first_line or "it says nothing of its version")
    if answer.outcome == "missing" and sys.platform != "darwin":
        return probe.finding("missing", _NOT_A_MAC, remedy=_ON_A_MAC)
    if "missing Metal Toolchain" in answer.text:
        return probe.finding(
            "missing",
            "Xcode without its Metal toolchain",
            why="From Xcode 26 on it is a component of its own.",
            remedy=Remedy(told="Fetch it.", commands=("xcodebuild -downloadComponent MetalToolchain",)),
        )
    absent = "unable to find utility" in answer.text or answer.outcome == "missing"
    return probe.finding(
        "missing" if absent else "broken",
        answer.told(),
        remedy=Remedy(
            told="Install the whole of Xcode, and make it the one that is used:", commands=(_SWITCH,)
        ),
    )


PROBES = (
    Probe(
        id="xcode",
        group="apple",
        title="Xcode",
        wanted="Xcode, not its command line tools alone",
        why="It has the SDKs for Macs and iPhones.",
        needed_for=_NEEDED,
        look=_xcode,
        seconds=20.0,
    ),
    Probe(
        id="metal",
        group="apple",
        title="Metal compiler",
        wanted="an answer of xcrun metal",
        why="Compiles the kernels of libraries for metal and iphone.",
        needed_for=_NEEDED,
        look=_metal,
        seconds=30.0,
    ),
)
