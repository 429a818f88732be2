"""Which Chromium the tests start, and how."""

import shutil

FLAGS = (
    "--enable-unsafe-webgpu",
    "--no-sandbox",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
)
"""WebGPU of SwiftShader, as root too, and no word to the network."""


def executable() -> str:
    """The system's browser. What is missing is a failure."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return found
    raise AssertionError("No Chromium: install the browser (Debian: apt install chromium).")
