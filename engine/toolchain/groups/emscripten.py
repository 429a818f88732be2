"""What the official compiler needs for browsers: Emscripten, and TVM's runtime as bitcode."""

import os
from pathlib import Path

from engine.toolchain.finding import Finding, Remedy
from engine.toolchain.probe import Probe
from engine.toolchain.programs import ask, version_of, which

VERSION = "3.1.56"
"""The version that MLC documents; later ones make libraries that no page of WebLLM loads."""
_EMSDK = (
    "git clone https://github.com/emscripten-core/emsdk",
    f"./emsdk/emsdk install {VERSION}",
    f"./emsdk/emsdk activate {VERSION}",
    ". ./emsdk/emsdk_env.sh",
)
_RUNTIME = ("wasm_runtime.bc", "tvmjs_support.bc", "webgpu_runtime.bc")
_MLC_RUNTIME = "mlc_wasm_runtime.bc"
_MLC, _TVM, _HOME = "MLC_LLM_SOURCE_DIR", "TVM_SOURCE_DIR", "TVM_HOME"
_NEEDED = {"mlc_llm": ("webgpu",)}
_INSTEAD = "The embedded backend needs none of it."


def _emcc(probe: Probe) -> Finding:
    answer = ask(["emcc", "--version"])
    if answer.outcome == "missing":
        root = Path(os.environ.get("EMSDK", ""))
        if os.environ.get("EMSDK") and (root / "upstream" / "emscripten").is_dir():
            return probe.finding(
                "missing",
                f"not on PATH, though EMSDK is {root}",
                remedy=Remedy(
                    told="Activate it in this shell, then start mlc-wizard from there.",
                    commands=(f". {root / 'emsdk_env.sh'}",),
                ),
            )
        told = f"Install Emscripten {VERSION}. {_INSTEAD}"
        return probe.finding("missing", answer.told(), remedy=Remedy(told=told, commands=_EMSDK))
    again = Remedy(told=f"Install version {VERSION}, and activate it in this shell.", commands=_EMSDK[1:])
    if not answer.answered:
        return probe.finding("broken", answer.told(), remedy=again)
    version = answer.version(r"\b(\d+\.\d+\.\d+)\b")
    if not version:
        return probe.finding("broken", f"no version: {answer.told()}", remedy=again)
    told = f"{version}, {which('emcc')}"
    if version == VERSION:
        return probe.finding("ok", told)
    newer = version_of(version) > version_of(VERSION)
    return probe.finding(
        "warn",
        told,
        why="Libraries of later versions ask for functions that WebLLM does not have: in the page "
        "WebAssembly.instantiate fails with a LinkError."
        if newer
        else "MLC is built with another version, and this one was never tried.",
        remedy=again,
    )


def _sources(probe: Probe) -> Finding:
    places = {name: os.environ.get(name, "") for name in (_MLC, _TVM, _HOME)}
    given = {name: Path(place) for name, place in places.items() if place}
    if not given:
        return probe.finding("missing", f"{_MLC}, {_TVM} and {_HOME} are not set", remedy=_prepare(None))
    for name, place in given.items():
        if not place.is_dir():
            return probe.finding(
                "broken",
                f"{name} is {place}, which is no folder",
                remedy=Remedy(told=f"Correct {name}; it has to be an absolute path."),
            )
        if not place.is_absolute():
            return probe.finding(
                "broken",
                f"{name} is {place}, which is not absolute",
                why="mlc_llm runs tools in other folders, where a relative path leads nowhere.",
                remedy=Remedy(told=f"Set {name} to {place.absolute()}."),
            )
    mlc = given.get(_MLC)
    # TVM looks below TVM_HOME, mlc_llm below MLC_LLM_SOURCE_DIR; TVM_SOURCE_DIR is what MLC's documents set.
    home = given.get(_HOME)
    dist = [home / "web" / "dist" / "wasm", home / "web" / "dist"] if home else []
    absent = [name for name in _RUNTIME if not any((folder / name).is_file() for folder in dist)]
    if mlc is None or not (mlc / "web" / "dist" / "wasm" / _MLC_RUNTIME).is_file():
        absent.append(_MLC_RUNTIME)
    unset = [name for name in (_MLC, _HOME) if name not in given]
    if absent or unset:
        told = [f"{name} is not set" for name in unset]
        told += [f"missing: {', '.join(absent)}"] if absent else []
        return probe.finding("missing", "; ".join(told), remedy=_prepare(mlc))
    return probe.finding("ok", f"all files, in {home} and {mlc}")


def _prepare(checkout: Path | None) -> Remedy:
    place = str(checkout) if checkout else "$PWD/mlc-llm"
    clone = () if checkout else ("git clone --recursive https://github.com/mlc-ai/mlc-llm",)
    return Remedy(
        told=f"Compile the runtime in a checkout of mlc-llm, with Emscripten {VERSION} active. {_INSTEAD}",
        commands=(
            *clone,
            f"export {_MLC}={place} {_TVM}={place}/3rdparty/tvm {_HOME}={place}/3rdparty/tvm",
            f"cd {place} && git submodule update --init --recursive && ./web/prep_emcc_deps.sh",
        ),
    )


PROBES = (
    Probe(
        id="emcc",
        group="emscripten",
        title="Emscripten",
        wanted=VERSION,
        why="The mlc_llm backend links libraries for webgpu with it.",
        needed_for=_NEEDED,
        look=_emcc,
        seconds=20.0,
    ),
    Probe(
        id="wasm-bitcode",
        group="emscripten",
        title="Runtime as bitcode",
        wanted=f"{', '.join(_RUNTIME)} below {_HOME}, {_MLC_RUNTIME} below {_MLC}",
        why="The mlc_llm backend links them into libraries for webgpu; its wheels do not have them.",
        needed_for=_NEEDED,
        look=_sources,
    ),
)
