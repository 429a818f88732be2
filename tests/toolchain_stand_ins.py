"""Programs that stand in for tools of other people, in a folder that is all of PATH."""

import os
import shlex
import sys
from pathlib import Path

CAT, SLEEP = "/bin/cat", "/bin/sleep"
ABORTED = "terminate called after throwing an instance of 'tvm::ffi::Error'"
ABORTS = f"""
import os
os.write(2, {ABORTED!r}.encode() + b"\\n")
os.write(2, b"  what():  TypeAttr `__ffi_repr__` is already registered for type index 130\\n")
os.abort()
"""
"""What a package of TVM's that does not belong to its tvm_ffi does when it is imported."""


def stand_in(
    folder: Path, name: str, says: str | bytes = "", *, code: int = 0, dies: str = "", hangs: bool = False
) -> Path:
    """A program `name` in `folder` that prints `says`, then ends with `code`, `dies` of a signal or `hangs`.

    One that hangs waits for a process of its own, whose id is in NAME.pid, and does not end when asked to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    said = folder / f"{name}.says"
    said.write_bytes(says if isinstance(says, bytes) else says.encode())
    if os.name == "nt":
        end = f"ping -n 600 127.0.0.1 >nul\n@exit /b {code}" if hangs else f"@exit /b {code}"
        program = folder / f"{name}.cmd"
        program.write_text(f'@type "{said}"\n@{end}\n')
        return program
    lines = ["#!/bin/sh", f"{CAT} {shlex.quote(str(said))}"]
    if hangs:
        pid = shlex.quote(str(folder / f"{name}.pid"))
        lines += ["trap '' TERM", f"{SLEEP} 600 &", f"echo $! > {pid}", "wait", "wait"]
    if dies:
        lines.append(f"kill -s {dies} $$")
    lines.append(f"exit {code}")
    program = folder / name
    program.write_text("\n".join(lines) + "\n")
    program.chmod(0o755)
    return program


def fake_package(folder: Path, name: str, code: str) -> dict[str, str]:
    """The environment in which `import name` runs `code`."""
    package = folder / name
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(code)
    root = str(Path(__file__).parents[1])
    return {"PYTHONPATH": os.pathsep.join([str(folder), root])}


def bare_path(folder: Path) -> str:
    """A PATH with nothing but what tests put into `folder`; Windows needs its own folder, too."""
    folder.mkdir(parents=True, exist_ok=True)
    system = Path(os.environ.get("SYSTEMROOT", r"C:\Windows")) / "System32"
    return os.pathsep.join([str(folder), str(system)]) if sys.platform == "win32" else str(folder)
