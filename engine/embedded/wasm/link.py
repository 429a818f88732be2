"""Link the objects that TVM exported for a model with the runtime into one WebLLM library."""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from engine import wasm_lint
from engine.embedded.wasm import build, toolchain
from engine.embedded.wasm.build import LAST_LINES, LIBRARIES, OBJECTS, START_FILE, Report
from engine.errors import StageError

# Deep recursion is JSON and destructors only; the heap grows on demand behind the stack.
STACK_BYTES = 4 << 20


def link(objects: Sequence[Path], output: Path, report: Report | None = None) -> None:
    """Write `output`, a WebAssembly module that WebLLM can load, from a model's object files.

    `objects` are wasm32 object files as relax's `export_library` hands to its `fcompile`. The runtime
    is compiled first where the cache has none, told to `report`. Raises StageError where a symbol stays
    undefined or the result asks for anything that WebLLM does not supply; `output` is untouched then.
    """
    folder = build.runtime(report)
    command = [
        "wasm-ld",
        "--entry=_initialize",
        "--strip-all",
        "-O2",
        "-z",
        f"stack-size={STACK_BYTES}",
        *(f"--export={name}" for name in sorted(wasm_lint.CALLED_EXPORTS)),
        str(folder / START_FILE),
        *(str(path.absolute()) for path in objects),
        *(str(path) for path in sorted((folder / OBJECTS).glob("*.o"))),
        *(str(folder / name) for name in LIBRARIES),
    ]
    with tempfile.TemporaryDirectory(prefix="mlc-wizard-", ignore_cleanup_errors=True) as name:
        linked = Path(name) / "linked.wasm"
        with toolchain.zig([*command, "-o", str(linked)], cwd=Path(name), cache=Path(name)) as process:
            said = process.communicate()[0]
        if process.returncode != 0 or not linked.is_file():
            raise StageError(
                f"The model could not be linked (wasm-ld, exit code {process.returncode}).",
                why="\n".join(said.strip().splitlines()[-LAST_LINES:]),
                remedy="This is a fault of mlc-wizard: please report it with this message.",
            )
        problems = wasm_lint.lint(linked)
        if problems:
            raise StageError(
                "The linked library cannot run in WebLLM: " + "; ".join(str(problem) for problem in problems),
                remedy="This is a fault of mlc-wizard: please report it with this message.",
            )
        unfinished = output.with_name(f"{output.name}.unfinished")
        unfinished.write_bytes(linked.read_bytes())
        unfinished.replace(output)


def fcompile(output: str, objects: Sequence[str], **_options: object) -> None:
    """`link` in the form that relax's `export_library(output, fcompile=fcompile)` calls."""
    link([Path(name) for name in objects], Path(os.fspath(output)))


# Read by export_library: object files instead of LLVM bitcode, whose version must match the linker's,
# and a model that registers itself when the module starts, since a page opens no shared library.
fcompile.object_format = "o"  # type: ignore[attr-defined]
fcompile.need_system_lib = True  # type: ignore[attr-defined]
