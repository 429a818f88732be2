"""Failures of Docker: its daemon, its images, what it mounts."""

from engine.errors import ToolchainError, UsageError
from engine.explain.known import Known

BUILD = "docker build -t mlc-compiler -f docker/Dockerfile.mlc ."
OWN_BACKEND = "Or use the embedded backend (engine.backend = embedded), which needs no container."

CONTAINERS = (
    Known(
        code="docker-daemon",
        title="Docker's daemon does not answer.",
        texts=(
            "Cannot connect to the Docker daemon",
            "failed to connect to the docker API",
            "error during connect: …docker",
            "error during connect: …cannot find the file specified",
            "docker.sock: connect: connection refused",
            "docker.sock: connect: no such file or directory",
            "Docker Desktop is manually paused",
            "Docker Desktop is unable to start",
        ),
        cause="It is not running, or the docker command asks another one than it should.",
        remedy="Start Docker Desktop, or: sudo systemctl start docker. Which daemon is asked: docker "
        "context ls, and the variable DOCKER_HOST.",
        error=ToolchainError,
        backends=("docker",),
    ),
    Known(
        code="docker-permission",
        title="This user may not use Docker's daemon.",
        texts=(
            "permission denied while trying to connect to the …ocker",
            "docker.sock: connect: permission denied",
        ),
        cause="Its socket belongs to root and the group docker.",
        remedy="sudo usermod -aG docker $USER, then log out and in again. That group can do what root can; "
        "rootless Docker does without it: https://docs.docker.com/engine/security/rootless/",
        error=ToolchainError,
        backends=("docker",),
    ),
    Known(
        code="docker-died",
        title="Docker's daemon went away while the container ran.",
        texts=(
            "error waiting for container: unexpected EOF",
            "error waiting for container: EOF",
            "error waiting for container: …connection re",
            "rror response from daemon: …shutting down",
            "error getting events from daemon",
            "docker: unexpected EOF",
        ),
        cause="It was stopped, restarted or updated, or memory ran out.",
        remedy="Start Docker again and run the same once more: finished stages are kept.",
        backends=("docker",),
    ),
    Known(
        code="docker-image",
        title="Docker does not have the image.",
        texts=(
            "Unable to find image '",
            "rror response from daemon: No such image: ",
            "rror: No such image: ",
            "rror: No such object: ",
            "pull access denied for ",
            ": image not known",
        ),
        cause="It is built once, on this machine; no registry has it.",
        remedy=f"In a checkout of mlc-wizard: {BUILD}",
        error=ToolchainError,
        backends=("docker",),
    ),
    Known(
        code="docker-pull",
        title="Docker cannot fetch an image.",
        texts=(
            'Get "https://registry-1.docker.io/',
            "failed to resolve source metadata for ",
            "lookup registry-1.docker.io",
            "lookup auth.docker.io",
            "toomanyrequests: ",
            "failed to do request: Head ",
        ),
        cause="There is no network, a proxy that Docker does not know, or too many pulls from this address.",
        remedy="See that docker pull python:3.12-slim works. Docker Desktop has its proxy under Settings, "
        "Resources. Another base image that is here already: --build-arg BASE_IMAGE=NAME.",
        backends=("docker",),
    ),
    Known(
        code="docker-mounts",
        title="Docker cannot mount a folder of this machine.",
        texts=(
            "Mounts denied: ",
            "is not shared from the host and is not known to Docker",
            "are not shared from the host and are not known to Docker",
            "bind source path does not exist",
            "error while creating mount source path",
        ),
        cause="The daemon does not see it: it shares some folders only, or runs on another machine.",
        remedy="Docker Desktop: Settings, Resources, File sharing. Docker as a snap sees the home folder "
        "only. A daemon elsewhere (docker context ls, DOCKER_HOST) has other files.",
        error=UsageError,
        backends=("docker",),
    ),
    Known(
        code="docker-disk",
        title="Docker's own disk is full.",
        texts=(": no space left on device",),
        cause="Images and containers fill it, which in Docker Desktop is a file of limited size.",
        remedy="docker system df shows what takes the room, docker system prune removes what is not in use. "
        "Docker Desktop: Settings, Resources, Disk usage limit.",
        backends=("docker",),
    ),
    Known(
        code="docker-foreign-image",
        title="The image is not the one that mlc-wizard's Dockerfile makes.",
        texts=(
            "executable file not found in $PATH",
            "unable to start container process: exec: ",
            "starting container process caused: exec: ",
        ),
        cause="It lacks the program that runs stages.",
        remedy=f"Build it again, in a checkout of mlc-wizard: {BUILD}",
        error=ToolchainError,
        backends=("docker",),
    ),
    Known(
        code="docker-name",
        title="A container of an earlier run is still there.",
        texts=("Conflict. The container name ", "the container name …is already in use"),
        cause="Its run was killed, and Docker could not remove it.",
        remedy="docker rm --force NAME, with the name in that line, then run the same once more.",
        backends=("docker",),
    ),
    Known(
        code="docker-platform",
        title="The container runs under an emulator of another processor, and crashed there.",
        texts=(
            "qemu: uncaught target signal",
            "rosetta error: ",
            "exec format error",
            "no matching manifest for linux/arm64",
        ),
        cause="The image is for Intel, and TVM does not survive its emulation on Apple silicon.",
        remedy="Build the image for this machine: docker build --platform linux/arm64 -t mlc-compiler -f "
        f"docker/Dockerfile.mlc . {OWN_BACKEND}",
        error=ToolchainError,
    ),
)
