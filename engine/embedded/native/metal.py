"""Metal kernels, compiled by Xcode where this is a Mac that has it, else left as source.

Source is complete, too: the system compiles it when the library is loaded. Compiled kernels load faster, and
a fault in them shows here in place of there.
"""

import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from engine.embedded.native import tool
from engine.errors import StageError

SDKS = {"metal": "macosx", "iphone": "iphoneos"}
_STANDARDS = {"macosx": "macos-metal2.3", "iphoneos": "ios-metal2.3"}
MISSING = "Xcode's Metal compiler is not here"


def version(sdk: str) -> str:
    """What the Metal compiler for `sdk` says of its version; empty where there is none."""
    xcrun = shutil.which("xcrun")
    if xcrun is None:
        return ""
    asked = subprocess.run(
        [xcrun, "-sdk", sdk, "metal", "--version"], capture_output=True, check=False, stdin=subprocess.DEVNULL
    )
    return "" if asked.returncode else asked.stdout.decode("utf-8", "replace").strip() or "one of no version"


def compiler(sdk: str) -> Callable[[str], bytes] | None:
    """A function from the source of a kernel to a metallib for `sdk`; None without a Metal compiler here.

    It raises StageError where a kernel does not compile.
    """
    xcrun = shutil.which("xcrun")
    if xcrun is None or not version(sdk):
        return None

    def compile_kernel(source: str) -> bytes:
        with tempfile.TemporaryDirectory(prefix="mlc-wizard-", ignore_cleanup_errors=True) as name:
            folder = Path(name)
            (folder / "kernel.metal").write_text(source, encoding="utf-8")
            minimum = ["-mios-version-min=13.0"] if sdk == "iphoneos" else []
            compiled = ["-c", "kernel.metal", "-o", "kernel.air"]
            _run([xcrun, "-sdk", sdk, "metal", f"-std={_STANDARDS[sdk]}", *minimum, "-O3", *compiled], folder)
            _run([xcrun, "-sdk", sdk, "metallib", "kernel.air", "-o", "kernel.metallib"], folder)
            return (folder / "kernel.metallib").read_bytes()

    return compile_kernel


def _run(command: list[str], folder: Path) -> None:
    done = tool.run(command, folder)
    if done.returncode != 0:
        raise StageError(
            f"A Metal kernel did not compile (xcrun {command[3]}, exit code {done.returncode}).",
            why="\n".join(done.stdout.strip().splitlines()[-8:]),
            remedy="Update Xcode and its Metal toolchain: xcodebuild -downloadComponent MetalToolchain",
        )
