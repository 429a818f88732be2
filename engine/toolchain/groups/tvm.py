"""The compiler of the embedded backend: TVM, and the C++ compiler that comes as ziglang."""

import importlib.util
from pathlib import Path

from engine.catalog import COMPILED_HERE
from engine.toolchain import packages
from engine.toolchain.finding import EVERY, Finding, Remedy
from engine.toolchain.probe import Probe
from engine.toolchain.programs import ask

_CODEGENS = {
    "webgpu": ("webgpu", "llvm"),
    "cpu": ("llvm",),
    "cuda": ("cuda", "llvm"),
    "metal": ("metal", "llvm"),
    "iphone": ("metal", "llvm"),
    "opencl": ("opencl", "llvm"),
    "android": ("opencl", "llvm"),
    "vulkan": ("vulkan", "llvm"),
}
"""The code generators of TVM that a library for each target takes: kernels, and the code around them."""
_REINSTALL = "Install the versions that belong together."
_TRIO = ("apache-tvm", "apache-tvm-ffi", "ziglang")


def _tvm(probe: Probe) -> Finding:
    # An import that aborts ends this process, which the check tells in place of it.
    here = packages.installed("apache-tvm")
    owners = [name for name in packages.owners("tvm") if name != "apache-tvm"]
    if not here and importlib.util.find_spec("tvm") is None:
        remedy = packages.install(*_TRIO, told=_REINSTALL)
        return probe.finding("missing", "not installed", remedy=remedy)
    if here and owners:
        return probe.finding(
            "broken",
            f"apache-tvm {here} and {', '.join(owners)} in one environment",
            why="They install different files into the same folder, tvm; neither is whole.",
            remedy=Remedy(
                told="Make a new environment for mlc-wizard, or remove the other package and install TVM "
                "anew; mlc_llm goes into an environment of its own.",
                commands=(
                    f"python -m pip uninstall {' '.join(owners)} apache-tvm",
                    f"python -m pip install --force-reinstall apache-tvm=={probe.wanted}",
                ),
            ),
        )
    import tvm

    version, place = str(tvm.__version__), Path(tvm.__file__).parent
    told = f"{here or version}, {place}"
    if not here or place.resolve() != packages.place("apache-tvm", "tvm").resolve():
        return probe.finding(
            "broken",
            f"a TVM {version} that is not the package apache-tvm, in {place}",
            why="The runtime for browsers is compiled from the sources in the wheel of apache-tvm, and "
            "kernels use private parts of exactly that version.",
            remedy=Remedy(
                told="Take it off PYTHONPATH, then install the versions that belong together.",
                commands=packages.install(*_TRIO, told="").commands,
            ),
        )
    if here != probe.wanted:
        return probe.finding(
            "broken",
            told,
            why="mlc-wizard uses private parts of TVM, and compiles its sources: another version may fail, "
            "or compute something else.",
            remedy=packages.install(*_TRIO, told=_REINSTALL),
        )
    return probe.finding("ok", told)


def _ffi(probe: Probe) -> Finding:
    here = packages.installed("apache-tvm-ffi")
    remedy = packages.install(*_TRIO, told=_REINSTALL)
    if not here:
        return probe.finding("missing", "not installed", remedy=remedy)
    import tvm_ffi

    told = f"{here}, {Path(tvm_ffi.__file__).parent}"
    return probe.finding("ok", told) if here == probe.wanted else probe.finding("broken", told, remedy=remedy)


def _codegen(probe: Probe) -> Finding:
    if importlib.util.find_spec("tvm") is None:
        return probe.finding("missing", "no TVM", remedy=packages.install(*_TRIO, told=_REINSTALL))
    import tvm  # noqa: F401  registers its functions
    import tvm_ffi

    names = set(tvm_ffi.registry.list_global_func_names())
    there = {name for group in _CODEGENS.values() for name in group if f"target.build.{name}" in names}
    absent = {target: set(group) - there for target, group in _CODEGENS.items() if set(group) - there}
    told = ", ".join(sorted(there)) or "none"
    lacking = tuple(target for target in absent if target in COMPILED_HERE)
    if lacking:
        without = sorted(set().union(*(absent[target] for target in lacking)))
        return probe.finding(
            "broken",
            told,
            why=f"Without {', '.join(without)} there is no library for {', '.join(lacking)}.",
            remedy=packages.install("apache-tvm", told="Install the wheel anew.", again=True),
            needed_for={"embedded": lacking},
        )
    without = sorted(set().union(*absent.values()))
    return probe.finding("ok", f"{told}; this build lacks {', '.join(without)}" if without else told)


def _zig(probe: Probe) -> Finding:
    here = packages.installed("ziglang")
    spec = importlib.util.find_spec("ziglang")
    remedy = packages.install("ziglang", told="Install ziglang.")
    if not here or spec is None or spec.origin is None:
        return probe.finding("missing", "not installed", remedy=remedy)
    folder = Path(spec.origin).parent
    program = next((path for name in ("zig", "zig.exe") if (path := folder / name).is_file()), None)
    again = packages.install("ziglang", told="Install it anew.", again=True)
    if program is None:
        return probe.finding(
            "broken",
            f"{here}, but there is no zig in {folder}",
            why="The package is damaged, or a virus scanner took the program away.",
            remedy=again,
        )
    answer = ask([str(program), "version"])
    if not answer.answered:
        return probe.finding(
            "broken", answer.told(), why="The package is damaged, or for another machine.", remedy=again
        )
    told = f"{answer.first_line}, {folder}"
    if here != probe.wanted:
        return probe.finding(
            "broken",
            told,
            why="Flags and the C++ library change between its versions; others are not tested.",
            remedy=remedy,
        )
    return probe.finding("ok", told)


PROBES = (
    Probe(
        id="tvm",
        group="tvm",
        title="apache-tvm",
        wanted=packages.pinned("apache-tvm"),
        why="The compiler of the embedded backend. Without it weights and configuration can be made.",
        needed_for={"embedded": (EVERY,)},
        look=_tvm,
        seconds=60.0,
        child="tvm",
        turn=1,
    ),
    Probe(
        id="tvm-ffi",
        group="tvm",
        title="apache-tvm-ffi",
        wanted=packages.pinned("apache-tvm-ffi"),
        why="TVM's foreign function interface; the runtime for browsers is compiled from its sources.",
        needed_for={"embedded": (EVERY,)},
        look=_ffi,
        seconds=60.0,
        child="tvm",
    ),
    Probe(
        id="tvm-codegen",
        group="tvm",
        title="TVM's code generators",
        wanted="those of the targets of the embedded backend",
        why="What the installed TVM can write: shaders for GPUs, and machine code through LLVM.",
        needed_for={"embedded": (EVERY,)},
        look=_codegen,
        seconds=60.0,
        child="tvm",
        turn=2,
    ),
    Probe(
        id="zig",
        group="tvm",
        title="ziglang",
        wanted=packages.pinned("ziglang"),
        why="The C++ compiler and linker of the embedded backend.",
        needed_for={"embedded": (EVERY,)},
        look=_zig,
        seconds=30.0,
    ),
)
