"""Every probe, in the order in which they are shown."""

from engine.toolchain.groups import (
    android,
    apple,
    browser,
    cuda,
    docker,
    emscripten,
    hub,
    machine,
    mlc_llm,
    python,
    tvm,
    vulkan,
    wasm,
)
from engine.toolchain.probe import Probe

PROBES: tuple[Probe, ...] = (
    *python.PROBES,
    *tvm.PROBES,
    *wasm.PROBES,
    *machine.PROBES,
    *hub.PROBES,
    *browser.PROBES,
    *mlc_llm.PROBES,
    *emscripten.PROBES,
    *docker.PROBES,
    *cuda.PROBES,
    *vulkan.PROBES,
    *apple.PROBES,
    *android.PROBES,
)
"""What everything needs first, then what single targets and backends need."""

BY_ID = {probe.id: probe for probe in PROBES}
