"""The Vulkan loader."""

import ctypes
import ctypes.util
import sys

from engine.toolchain.finding import Finding, Remedy
from engine.toolchain.probe import Probe
from engine.toolchain.programs import clip

_NAMES = {"win32": ("vulkan-1.dll",), "darwin": ("libvulkan.dylib", "libvulkan.1.dylib", "libMoltenVK.dylib")}


def _loader(probe: Probe) -> Finding:
    names = [name for name in (ctypes.util.find_library("vulkan"),) if name]
    names += _NAMES.get(sys.platform, ("libvulkan.so.1",))
    said = ""
    for name in dict.fromkeys(names):
        try:
            library = ctypes.CDLL(name)
        except OSError as error:
            said = clip(str(error))
            continue
        return probe.finding("ok", f"{name}, Vulkan {_version(library)}")
    # As the loaders of Linux, Windows and macOS say it.
    absent = not said or any(text in said for text in ("No such file", "not find", "no such file"))
    return probe.finding(
        "missing" if absent else "broken",
        f"{names[-1]} is not there" if absent else said,
        remedy=Remedy(
            told="Install the loader: apt install libvulkan1, dnf install vulkan-loader; on Windows the "
            "driver of the GPU; on macOS the Vulkan SDK of LunarG."
        ),
    )


def _version(library: ctypes.CDLL) -> str:
    """vkEnumerateInstanceVersion: absent in loaders of 1.0; ten bits of major, ten of minor."""
    try:
        enumerate_version = library.vkEnumerateInstanceVersion
    except AttributeError:
        return "1.0"
    number = ctypes.c_uint32()
    enumerate_version(ctypes.byref(number))
    return f"{number.value >> 22 & 0x7F}.{number.value >> 12 & 0x3FF}"


PROBES = (
    Probe(
        id="vulkan-loader",
        group="vulkan",
        title="Vulkan loader",
        why="The mlc_llm backend looks for a device with it, and libraries for vulkan run through it.",
        needed_for={"mlc_llm": ("vulkan",)},
        look=_loader,
    ),
)
