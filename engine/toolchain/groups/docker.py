"""Docker: its client, its daemon, and the image for this machine's processor."""

import platform

from engine.catalog import COMPILED_HERE
from engine.errors import WizardError
from engine.toolchain.finding import EVERY, Finding, Remedy
from engine.toolchain.probe import Probe
from engine.toolchain.programs import ask, clip

_NEEDED = {"docker": (EVERY,)}
_BY_MLC_LLM = ("cuda", "vulkan", "opencl", "android")
_GIB = 2**30
_PLATFORMS = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}
"""How Docker calls what Python calls a machine."""


def _client(probe: Probe) -> Finding:
    answer = ask(["docker", "--version"])
    if answer.answered:
        return probe.finding("ok", answer.first_line or "it says nothing of its version")
    told = "Install it (https://docs.docker.com/get-docker/). The embedded backend needs no container."
    return probe.finding(answer.status, answer.told(), remedy=Remedy(told=told))


def _daemon(probe: Probe) -> Finding:
    from engine.backends.docker import inspection

    if inspection.client() is None:
        return probe.finding(
            "missing", "no client to ask it with", remedy=Remedy(told="Install Docker first.")
        )
    try:
        daemon = inspection.daemon()
    except WizardError as error:
        return _refused(probe, error)
    kind = "Podman" if daemon.podman else "Docker Desktop" if daemon.desktop else "Docker"
    memory = f", {daemon.memory / _GIB:.1f} GiB" if daemon.memory else ""
    return probe.finding("ok", f"{kind} {daemon.version}, {daemon.architecture}{memory}")


def _image(probe: Probe) -> Finding:
    from engine.backends.docker import inspection

    if inspection.client() is None:
        return probe.finding("missing", "no Docker", remedy=Remedy(told="Install Docker first."))
    try:
        image = inspection.image()
    except WizardError as error:
        absent = "has no image" in error.what
        return _refused(probe, error, absent=absent, known="" if absent else "not known: ")
    parts = [image.name, image.architecture]
    parts += [f"mlc-wizard {image.version}"] if image.version else []
    parts += [f"mlc_llm {image.mlc_llm}"] if image.mlc_llm else []
    told = ", ".join(filter(None, parts))
    here = _PLATFORMS.get(platform.machine().lower(), "")
    if here and image.architecture and image.architecture != here:
        return probe.finding(
            "broken",
            f"{told}, on a machine of {here}",
            why="It runs under an emulator of another processor: slowly, where TVM does not crash there. Its "
            "libraries for cpu are not for this machine.",
            needed_for={"docker": ("cpu",)},
            remedy=Remedy(
                told="In a checkout of mlc-wizard, build it for this machine:",
                commands=(
                    f"docker build --platform linux/{here} -t {image.name} -f docker/Dockerfile.mlc .",
                ),
            ),
        )
    return probe.finding("ok", told)


def _mlc_llm(probe: Probe) -> Finding:
    from engine.backends.docker import inspection

    # For the others, the embedded compiler in the image does.
    needed_for = {"docker": tuple(target for target in _BY_MLC_LLM if target not in COMPILED_HERE)}
    try:
        image = inspection.image()
    except WizardError as error:
        found = f"not known: {clip(error.what)}"
        remedy = Remedy(told="See to the image first.")
        return probe.finding("missing", found, remedy=remedy, needed_for=needed_for)
    if image.mlc_llm:
        return probe.finding("ok", f"{image.mlc_llm}, in {image.name}")
    wheels = "mlc-llm-nightly-cpu mlc-ai-nightly-cpu"
    build = f'docker build --build-arg MLC_LLM_WHEELS="{wheels}" -t {image.name} -f docker/Dockerfile.mlc .'
    remedy = Remedy(told="In a checkout of mlc-wizard, build the image with it:", commands=(build,))
    return probe.finding("missing", f"{image.name} was built without", remedy=remedy, needed_for=needed_for)


def _refused(probe: Probe, error: WizardError, *, absent: bool = False, known: str = "") -> Finding:
    return probe.finding(
        "missing" if absent else "broken",
        known + clip(error.what),
        why=error.why or probe.why,
        remedy=Remedy(told=error.remedy or "Try: docker info"),
    )


PROBES = (
    Probe(
        id="docker",
        group="docker",
        title="Docker",
        why="The docker backend runs the stages in a container.",
        needed_for=_NEEDED,
        look=_client,
    ),
    Probe(
        id="docker-daemon",
        group="docker",
        title="Docker's daemon",
        wanted="an answer, and Linux containers",
        why="It runs the containers of the docker backend.",
        needed_for=_NEEDED,
        look=_daemon,
        seconds=20.0,
    ),
    Probe(
        id="docker-image",
        group="docker",
        title="Image mlc-compiler",
        wanted="built for this machine's processor",
        why="The docker backend runs in it; it is built once.",
        needed_for=_NEEDED,
        look=_image,
        seconds=30.0,
    ),
    Probe(
        id="docker-mlc_llm",
        group="docker",
        title="mlc_llm in the image",
        why="In a container it makes what the embedded backend does not; Apple's compilers run in none.",
        needed_for={"docker": _BY_MLC_LLM},
        look=_mlc_llm,
        seconds=30.0,
    ),
)
