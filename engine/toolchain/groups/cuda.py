"""NVIDIA: the driver, which running needs, and a compiler for kernels, which compiling needs."""

import importlib
import importlib.util

from engine.cuda import NVRTC_VERSION, NVRTC_WHEELS
from engine.toolchain import packages
from engine.toolchain.finding import Finding, Remedy
from engine.toolchain.probe import Probe
from engine.toolchain.programs import ask, which

_QUERY = ("nvidia-smi", "--query-gpu=name,compute_cap,driver_version", "--format=csv,noheader")


def _driver(probe: Probe) -> Finding:
    answer = ask(_QUERY)
    remedy = Remedy(
        told="Install NVIDIA's driver (in WSL: on Windows, not inside), then start the machine anew. Without "
        "a device, libraries for cuda are compiled for an architecture that is named."
    )
    if answer.outcome == "missing":
        return probe.finding("missing", answer.told(), remedy=remedy)
    if not answer.answered:
        return probe.finding("broken", answer.told(), remedy=remedy)
    devices = [line.strip() for line in answer.text.splitlines() if line.count(",") == 2]
    if not devices:
        return probe.finding("broken", f"no device: {answer.told()}", remedy=remedy)
    shown = []
    for device in devices[:2]:
        name, capability, driver = (part.strip() for part in device.split(","))
        shown.append(f"{name} (sm_{capability.replace('.', '')}, driver {driver})")
    more = f" and {len(devices) - 2} more" if len(devices) > 2 else ""
    return probe.finding("ok", ", ".join(shown) + more)


def _compiler(probe: Probe) -> Finding:
    answer = ask(["nvcc", "--version"])
    nvrtc = _nvrtc()
    if answer.answered and (version := answer.version(r"release (\d+\.\d+)")):
        also = f"; also NVRTC, {nvrtc}" if nvrtc else ""
        return probe.finding("ok", f"nvcc {version}, {which('nvcc')}{also}")
    without = answer.told() if answer.text or answer.outcome != "missing" else "no nvcc"
    if nvrtc:
        return probe.finding("ok", f"NVRTC, {nvrtc}; {without}")
    remedy = packages.install(
        *(f"{wheel}=={NVRTC_VERSION}" for wheel in NVRTC_WHEELS),
        told="Install NVIDIA's runtime compiler as Python packages, or the CUDA toolkit with nvcc.",
    )
    return probe.finding(answer.status, f"{without}, no NVRTC", remedy=remedy)


def _nvrtc() -> str:
    """The version of NVRTC that TVM can load in this environment; "" where there is none."""
    try:
        if importlib.util.find_spec("cuda.bindings.nvrtc") is None:
            return ""
        error, major, minor = importlib.import_module("cuda.bindings.nvrtc").nvrtcVersion()
    except Exception:  # the bindings are there, the library is not, or fits no driver
        return ""
    return f"{major}.{minor}" if int(error) == 0 else ""


PROBES = (
    Probe(
        id="cuda-driver",
        group="cuda",
        title="NVIDIA driver",
        wanted="a device, for running libraries for cuda here",
        why="Libraries for cuda run on it; its device says for which architecture to compile.",
        of_use=("cuda",),
        look=_driver,
        seconds=20.0,
    ),
    Probe(
        id="cuda-compiler",
        group="cuda",
        title="CUDA compiler",
        wanted="nvcc, or NVRTC with cuda-bindings",
        why="Compiles the kernels of libraries for cuda; no device is needed for that.",
        needed_for={"embedded": ("cuda",), "mlc_llm": ("cuda",)},
        look=_compiler,
        seconds=30.0,
    ),
)
