"""Compile the runtime: its translation units side by side, and the C and C++ library they need."""

import hashlib
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from engine.embedded.wasm import cache, toolchain
from engine.embedded.wasm.toolchain import OWN_SOURCES, Toolchain
from engine.embedded.wasm.units import LIBRARY_FLAGS, Unit, lay_out, runtime_units
from engine.errors import ToolchainError

KIND = "wasm-runtime"
OBJECTS = "objects"
# In link order: each may need what those after it define.
LIBRARIES = ("libc++.a", "libc++abi.a", "libc.a", "libzigc.a", "libcompiler_rt.a")
START_FILE = "crt1-reactor.o"
LAST_LINES = 12
REINSTALL = "python -m pip install --force-reinstall mlc-wizard"

Report = Callable[[int, int, str], None]
"""Called with the units done, the units in all, and the name of the one just finished."""


def runtime(report: Report | None = None) -> Path:
    """The folder of the compiled runtime: `objects/*.o`, the libraries and the start file.

    Compiled on first use, in one to three minutes, and kept in the user's cache for this version of
    the compiler, the sources and the flags; safe to call from several processes. Raises ToolchainError
    where a package is missing or the compiler fails, StageError where the cache cannot be written.
    """
    tools = toolchain.find()
    return cache.entry(KIND, key(tools), lambda folder: build(tools, folder, report))


def key(tools: Toolchain) -> str:
    """A name for exactly this runtime: the versions, our own sources, the units and their flags."""
    # Flags hold the folders of this machine; only what they mean belongs in the key.
    units = runtime_units(
        Toolchain(tvm=Path("tvm"), tvm_ffi=Path("tvm_ffi"), zig_lib=Path("zig"), versions=tools.versions),
        Path("own"),
    )
    digest = hashlib.sha256(json.dumps([tools.versions, LIBRARIES, LIBRARY_FLAGS, repr(units)]).encode())
    for source in sorted(OWN_SOURCES.rglob("*")):
        if source.is_file():
            digest.update(source.relative_to(OWN_SOURCES).as_posix().encode() + b"\0" + source.read_bytes())
    return digest.hexdigest()[:24]


def build(tools: Toolchain, folder: Path, report: Report | None = None) -> None:
    """Compile everything into the empty `folder`; see `runtime`."""
    # Inside the folder, so that whoever clears away an unfinished entry clears this away as well: it
    # grows to 100 MB.
    scratch = folder / "scratch"
    # Relative to where zig runs: LLVM orders some blocks by what a path happens to do to its memory,
    # and the same runtime should come out wherever the cache is.
    tree = Path("tree")
    lay_out(scratch / tree)
    (folder / OBJECTS).mkdir()
    units = runtime_units(tools, tree)
    jobs = [_library_job(scratch), *unit_jobs(units, folder / OBJECTS, scratch)]
    run_jobs(jobs, scratch, report)
    collect_libraries(scratch / "zig", folder)
    shutil.rmtree(scratch)


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run of zig: what it makes, in a few words, and its arguments."""

    name: str
    arguments: tuple[str, ...]


def unit_jobs(units: Sequence[Unit], objects: Path, scratch: Path) -> list[Job]:
    """The jobs, to be run in `scratch`, that compile `units` to `objects/<number>.o`.

    Raises ToolchainError for a missing source.
    """
    jobs = []
    place = Path(os.path.relpath(objects, scratch))
    for number, unit in enumerate(units):
        missing = [path for path in unit.sources if not (scratch / path).is_file()]
        if missing:
            raise ToolchainError(
                f"The source file {missing[0]} of the WebAssembly runtime is missing.",
                why="An installed package is damaged, or not the version that mlc-wizard asks for.",
                remedy=REINSTALL,
            )
        source = scratch / f"unit{number}{unit.suffix}"
        includes = "".join(f'#include "{path.as_posix()}"\n' for path in unit.sources)
        source.write_text(includes, encoding="utf-8")
        output = place / f"{number:02}.o"
        jobs.append(
            Job(name=unit.name, arguments=(unit.driver, *unit.flags, "-c", source.name, "-o", str(output)))
        )
    return jobs


def _library_job(scratch: Path) -> Job:
    """The smallest program: linking it makes zig build the libraries, in its cache."""
    source = scratch / "library.cc"
    source.write_text("", encoding="utf-8")
    arguments = ("c++", *LIBRARY_FLAGS, str(source), "-o", str(scratch / "library.wasm"))
    return Job(name="C++ library", arguments=arguments)


def run_jobs(jobs: Sequence[Job], scratch: Path, report: Report | None = None) -> None:
    """Run `jobs`, as many at a time as there are cores, with zig's cache in `scratch/zig`.

    Raises ToolchainError, with the compiler's last words and the log they are in, for the first that
    fails; the others are ended then, as they are when the caller is interrupted.
    """
    running = _Running(scratch)
    if report:
        report(0, len(jobs), "")
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        futures = [pool.submit(running.run, job) for job in jobs]
        try:
            for done, future in enumerate(as_completed(futures), start=1):
                name = future.result()
                if report:
                    report(done, len(jobs), name)
        except BaseException:
            running.stop()
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def collect_libraries(zig_cache: Path, folder: Path) -> None:
    """Copy what zig built of the C and C++ library out of its cache, so that a link needs no other file."""
    for name in (*LIBRARIES, START_FILE):
        found = sorted(zig_cache.glob(f"o/*/{name}"))
        if not found:
            raise ToolchainError(
                f"zig did not build {name}.",
                why="The installed ziglang is not the version that mlc-wizard asks for.",
                remedy=REINSTALL,
            )
        shutil.copyfile(found[0], folder / name)


class _Running:
    """The compilers at work, so that all can be ended at once."""

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        self._lock = threading.Lock()
        self._processes: set[subprocess.Popen[str]] = set()
        self._stopped = False

    def run(self, job: Job) -> str:
        """Run zig to its end and return the job's name; raises ToolchainError where it fails."""
        with self._lock:
            if self._stopped:
                return job.name
            process = toolchain.zig(job.arguments, cwd=self._scratch, cache=self._scratch / "zig")
            self._processes.add(process)
        with process:
            output = process.communicate()[0]
        with self._lock:
            self._processes.discard(process)
            stopped = self._stopped
        if process.returncode != 0 and not stopped:
            raise _failure(job, process.returncode, output)
        return job.name

    def stop(self) -> None:
        with self._lock:
            self._stopped = True
            for process in self._processes:
                process.kill()


def _failure(job: Job, code: int, output: str) -> ToolchainError:
    log = cache.root() / KIND / "failed-build.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text(f"zig {' '.join(job.arguments)}\nexit code {code}\n\n{output}", encoding="utf-8")
    last = "\n".join(output.strip().splitlines()[-LAST_LINES:])
    return ToolchainError(
        f"zig could not compile the WebAssembly runtime ({job.name}, exit code {code}).",
        why=last or "The compiler said nothing; it may have run out of memory.",
        remedy=f"The whole output is in {log}. Reinstalling may help: {REINSTALL}",
    )
