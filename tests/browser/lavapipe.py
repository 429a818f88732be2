"""A GPU in software that has shader-f16: Mesa's Vulkan driver lavapipe, as Debian and Ubuntu package it.

Dawn refuses Debian 12's own, of Mesa 22.3, and takes 25.0 of its backports. `fetch` unpacks a driver into
a folder of the tests; what is installed stays as it is. Only the standard library is imported: tests/run.py
uses this before there is anything else.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path

HERE = Path(__file__).parent
FOLDER = HERE / "driver"
"""What `fetch` unpacked."""
SHADERS = FOLDER / "shaders"
MANIFEST = "usr/share/vulkan/icd.d/lvp_icd*.json"
PACKAGE = "mesa-vulkan-drivers"
ADVICE = (
    f"install Mesa's Vulkan drivers, version 25 or later (Debian, Ubuntu: apt install {PACKAGE}; "
    "Debian 12 has it in its backports)"
)
NEWER_IN_BACKPORTS = ("bookworm",)


class Missing(Exception):
    """The driver cannot be had; the message says why, and what to install."""


def environment() -> dict[str, str]:
    """The variables that make lavapipe a process's only Vulkan driver: the fetched one, else the system's."""
    for root in (FOLDER, Path("/")):
        for manifest in sorted(root.glob(MANIFEST)):
            # Loaders before 1.3.207 read the second.
            chosen = {"VK_DRIVER_FILES": str(manifest), "VK_ICD_FILENAMES": str(manifest)}
            # Compiled kernels are kept, which is most of the time of a second run.
            SHADERS.mkdir(parents=True, exist_ok=True)
            chosen["MESA_SHADER_CACHE_DIR"] = str(SHADERS)
            # Kernels here have little to do, and most of the time goes into compiling them: vectors of 4
            # take half the time of those of 8, and LLVM's optimizations a quarter of what is left.
            chosen |= {"LP_NATIVE_VECTOR_WIDTH": "128", "GALLIVM_PERF": "nopt"}
            if root == FOLDER:
                libraries = {str(path.parent) for path in FOLDER.rglob("*.so*")}
                inherited = os.environ.get("LD_LIBRARY_PATH")
                chosen["LD_LIBRARY_PATH"] = ":".join(
                    [*sorted(libraries), *([inherited] if inherited else [])]
                )
            return chosen
    raise Missing(f"No software GPU: {ADVICE}.")


def fetch() -> None:
    """Download the driver and the libraries that this system lacks, and unpack them into FOLDER.

    Asks the repositories that apt knows, with lists and settings of its own: needs no root, installs
    nothing. Raises Missing.
    """
    if not (shutil.which("apt-get") and shutil.which("dpkg")):
        raise Missing(f"No software GPU with shader-f16, and no apt to get one: {ADVICE}.")
    shutil.rmtree(FOLDER, ignore_errors=True)
    work = FOLDER / "apt"
    for part in ("lists/partial", "archives/partial"):
        (work / part).mkdir(parents=True)
    own = {
        "Dir::State::Lists": work / "lists",
        "Dir::Cache": work,
        "Dir::Cache::Archives": work / "archives",
        "APT::Get::ReInstall": "true",
        "Debug::NoLocking": "true",  # the lock that it would take guards what is installed
    }
    apt = ["apt-get", "--quiet", *(f"-o{name}={value}" for name, value in own.items())]
    sources = work / "sources.list"
    sources.write_text("\n".join(_sources(apt)) + "\n", encoding="utf-8")
    apt += [f"-oDir::Etc::SourceList={sources}", "-oDir::Etc::SourceParts=/dev/null"]
    _run(*apt, "update")
    suite = f"/{_release()}-backports" if _release() in NEWER_IN_BACKPORTS else ""
    _run(*apt, "install", "--yes", "--download-only", "--no-install-recommends", f"{PACKAGE}{suite}")
    for package in sorted((work / "archives").glob("*.deb")):
        _run("dpkg", "-x", str(package), str(FOLDER))
    shutil.rmtree(work)
    (manifest,) = FOLDER.glob(MANIFEST)
    driver = json.loads(manifest.read_text(encoding="utf-8"))
    (library,) = FOLDER.rglob(Path(driver["ICD"]["library_path"]).name)
    driver["ICD"]["library_path"] = str(library)
    manifest.write_text(json.dumps(driver), encoding="utf-8")


def _release() -> str:
    """The code name of this distribution's release."""
    return _os_release().get("VERSION_CODENAME", "")


def _os_release() -> dict[str, str]:
    path = Path("/etc/os-release")
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return {key: value.strip('"') for key, _, value in (line.partition("=") for line in lines) if value}


def _sources(apt: list[str]) -> list[str]:
    """The distribution's own repositories as apt knows them here, and the backports beside them."""
    # What there is shows once its lists are there. Repositories of others may fail, and are not needed.
    subprocess.run([*apt, "update"], stdin=subprocess.DEVNULL, capture_output=True, check=False)
    asked = "|".join(f"$({field})" for field in ("ORIGIN", "CODENAME", "REPO_URI", "RELEASE", "COMPONENT"))
    told = _run(*apt, "indextargets", "--format", asked, "Created-By: Packages")
    distribution, release = _os_release().get("ID", ""), _release()
    keyring = Path(f"/usr/share/keyrings/{distribution}-archive-keyring.gpg")
    trust = f"[signed-by={keyring}] " if keyring.is_file() else ""
    found = []
    for line in told.splitlines():
        origin, codename, uri, suite, component = line.split("|")
        # Updates are named RELEASE-updates in Debian, and as the release in Ubuntu.
        if origin.lower() != distribution or codename.split("-")[0] != release:
            continue
        found.append(f"deb {trust}{uri} {suite} {component}")
        if codename == release in NEWER_IN_BACKPORTS:
            found.append(f"deb {trust}{uri} {release}-backports {component}")
    if not found:
        raise Missing(
            f"No software GPU, and apt knows no repository of {release or 'this system'}: {ADVICE}."
        )
    return found


def _run(*command: str) -> str:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Missing(f"No software GPU: `{command[0]}` failed; {ADVICE}.\n{done.stdout}{done.stderr}")
    return done.stdout
