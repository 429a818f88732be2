"""Set up everything that the tests need, and run them: the whole of it on a machine with Python 3.11.

    python tests/run.py [ARGUMENT OF PYTEST ...]

Makes .venv in the checkout and installs the package there, editable, with its test and lint tools; runs
`npm ci` for the browser tests; installs Chromium where apt can; unpacks a software GPU with float16 beside
them where the system has none; compiles the WebAssembly runtime into the user's cache; then the static
checks, then pytest. What is done already is not done again. Something that is missing and cannot be
installed ends it with a sentence on what to install.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import time
import venv
from collections.abc import Callable
from pathlib import Path

from browser import lavapipe

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = ROOT / ".venv"
PYTHON = ENVIRONMENT / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
BROWSER_TESTS = ROOT / "tests" / "browser"
CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome")
GROUPS = ("test", "lint")
STATIC_CHECKS = {
    "ruff check": ("-m", "ruff", "check"),
    "ruff format": ("-m", "ruff", "format", "--check"),
    "mypy": ("-m", "mypy"),
    "lint-imports": ("-c", "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports())"),
}
RUNTIME = "from engine.embedded.wasm import build; print(build.runtime(lambda *done: print(*done)))"
# A file of tests shares a browser and an export, so one worker takes all of it. Two workers are enough: a
# test that compiles or draws in software uses all cores by itself. The order is conftest.py's: the longest
# files first, where xdist would begin with those of the most tests.
PYTEST = ("-m", "pytest", "-n", "2", "--dist", "loadfile", "--no-loadscope-reorder")
# A run that is cut off must have said which test it was at.
IN_CI = ("-v", "--durations=20")
LIMIT_SECONDS = 3600
"""For all tests together; a run takes a quarter of it."""


def main(arguments: list[str]) -> int:
    """Set up, check, test; the exit code of the first thing that failed."""
    if sys.version_info < (3, 11):
        raise SystemExit(f"Python 3.11 or later is needed; this is {sys.version.split()[0]}.")
    os.chdir(ROOT)
    step("Python environment", make_environment)
    step("WebLLM for the browser tests", install_webllm)
    step("Chromium", find_chromium)
    step("Software GPU with float16", find_gpu)
    step("WebAssembly runtime", lambda: run(PYTHON, "-c", RUNTIME))
    failed = [name for name, command in STATIC_CHECKS.items() if not passes(name, command)]
    code = test(*(IN_CI if os.environ.get("CI") else ()), *arguments)
    if failed:
        print(f"Failed before pytest: {', '.join(failed)}", flush=True)
    return code or bool(failed)


def test(*arguments: str) -> int:
    """Run pytest; its exit code, or 1 where it did not end in time."""
    try:
        return subprocess.run([PYTHON, *PYTEST, *arguments], check=False, timeout=LIMIT_SECONDS).returncode
    except subprocess.TimeoutExpired:
        print(f"The tests did not end within {LIMIT_SECONDS} s.", flush=True)
        return 1


def step(name: str, do: Callable[[], None]) -> None:
    """Do one part of the set-up, named and timed."""
    print(f"== {name}", flush=True)
    began = time.monotonic()
    do()
    print(f"   {time.monotonic() - began:.1f} s", flush=True)


def run(*command: str | Path, cwd: Path = ROOT) -> None:
    """Run `command`; one that fails ends everything with its own message."""
    done = subprocess.run([*command], cwd=cwd, stdin=subprocess.DEVNULL, check=False)
    if done.returncode != 0:
        raise SystemExit(f"Exit code {done.returncode}: {' '.join(map(str, command))}")


def passes(name: str, command: tuple[str, ...]) -> bool:
    """Whether a static check passes; what it finds goes to the terminal."""
    print(f"== {name}", flush=True)
    return subprocess.run([PYTHON, *command], check=False).returncode == 0


def is_new(stamp: Path, *sources: Path) -> bool:
    """Whether `stamp` does not say yet what `sources` and this Python are; `settle` writes it down."""
    return not stamp.is_file() or stamp.read_text(encoding="utf-8") != fingerprint(*sources)


def settle(stamp: Path, *sources: Path) -> None:
    """Remember that the set-up for `sources` is done."""
    stamp.write_text(fingerprint(*sources), encoding="utf-8")


def fingerprint(*sources: Path) -> str:
    """What a set-up depends on: the contents of `sources`, this Python, the place of the checkout."""
    digest = hashlib.sha256(f"{sys.version} {ROOT}".encode())
    for source in sources:
        digest.update(source.read_bytes())
    return digest.hexdigest()


def make_environment() -> None:
    """.venv with the package and the tools of its groups."""
    stamp, project = ENVIRONMENT / "installed", ROOT / "pyproject.toml"
    if not is_new(stamp, project):
        return
    stamp.unlink(missing_ok=True)
    venv.create(ENVIRONMENT, symlinks=os.name != "nt", with_pip=True)
    # Groups need pip 25.1; what comes with Python 3.11 is older.
    run(PYTHON, "-m", "pip", "install", "--quiet", "--upgrade", "pip>=25.1")
    groups = [argument for group in GROUPS for argument in ("--group", group)]
    run(PYTHON, "-m", "pip", "install", "--quiet", "--editable", ".", *groups)
    settle(stamp, project)


def install_webllm() -> None:
    """node_modules, exactly as package-lock.json says."""
    stamp, lock = BROWSER_TESTS / "node_modules" / ".installed", BROWSER_TESTS / "package-lock.json"
    if not is_new(stamp, lock):
        return
    npm = shutil.which("npm")
    if npm is None:
        raise SystemExit("npm is missing: install Node.js (Debian: apt install npm).")
    run(npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", cwd=BROWSER_TESTS)
    settle(stamp, lock)


def find_chromium() -> None:
    """Chromium on the PATH, installed through apt where that is possible without asking."""
    if any(map(shutil.which, CHROMIUM_NAMES)):
        return
    apt = shutil.which("apt-get")
    if apt is None or os.geteuid() != 0:
        raise SystemExit(
            f"No browser: none of {', '.join(CHROMIUM_NAMES)} is on the PATH. Install Chromium or Chrome "
            "(Debian: sudo apt install chromium) and run this again."
        )
    os.environ["DEBIAN_FRONTEND"] = "noninteractive"
    run(apt, "update", "--quiet")
    run(apt, "install", "--yes", "--quiet", "--no-install-recommends", "chromium")


def find_gpu() -> None:
    """lavapipe with shader-f16: the system's, or a newer one unpacked into a folder of the tests."""
    if sys.platform != "linux" or has_float16():  # elsewhere the tests for it are skipped
        return
    try:
        lavapipe.fetch()
    except lavapipe.Missing as missing:
        raise SystemExit(str(missing)) from None
    if not has_float16():
        raise SystemExit(f"The software GPU that apt has gives Node.js no shader-f16: {lavapipe.ADVICE}.")


def has_float16() -> bool:
    """Whether WebLLM in Node.js would get a WebGPU adapter with shader-f16."""
    try:
        environment = {**os.environ, **lavapipe.environment()}
    except lavapipe.Missing:
        return False
    asked = subprocess.run(
        [shutil.which("node") or "node", "node.mjs", "http://127.0.0.1"],
        cwd=BROWSER_TESTS, env=environment, input='{"method": "adapter", "args": []}', text=True,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    return '"shader-f16"' in asked.stdout


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
