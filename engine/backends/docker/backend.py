"""Another backend's commands in a container: one `docker run` for each."""

import contextlib
import hashlib
import os
import platform
import sys
from collections.abc import Callable

from engine import version
from engine.backends.base import Backend, Folders, StageCommand
from engine.backends.docker import inspection, mounts, official
from engine.backends.docker.inspection import Daemon, Image
from engine.backends.embedded import EmbeddedBackend
from engine.backends.official.backend import OfficialBackend
from engine.backends.official.inspection import Inspection
from engine.errors import ToolchainError, UsageError
from engine.explain.containers import BUILD
from engine.model.facts import ModelFacts
from engine.narrate import RECORDS_VARIABLE
from engine.plan import ExportPlan

_APPLE = ("metal", "iphone")
_OF_THE_HOST = ("cpu", "cuda", "vulkan", "opencl")
"""Targets whose library is a shared library of a system and its processor."""
_PROGRAMS = {sys.executable: "python", str(official.candidate().python): official.PYTHON}
"""What programs of this machine, as commands have them, are called in the image."""


class DockerBackend:
    """The embedded compiler in a Linux container, for machines that TVM has no wheels for.

    What it does not cover, the official one does, where the image was built with it.

    A container sees the model read-only and the output, no network, and writes as the calling user. It
    has a name of its own for each export and stage, so that it can be found and ended.
    """

    name = "docker"

    def __init__(
        self,
        image: Callable[[], Image] = inspection.image,
        daemon: Callable[[], Daemon] = inspection.daemon,
        mlc_llm: Callable[[Image], Inspection] = official.look,
    ) -> None:
        self.inner: Backend = EmbeddedBackend()
        self._look = image, daemon
        self._look_into = mlc_llm
        self._seen: tuple[Image, Daemon] | None = None

    @classmethod
    def unasked(cls) -> "DockerBackend":
        """One that waits for no answer of Docker's: what is not known yet counts as right."""
        return cls(
            lambda: inspection.image(wait=False),
            lambda: inspection.daemon(wait=False),
            lambda image: official.look(image, wait=False),
        )

    @property
    def was_asked(self) -> bool:
        """Whether Docker has answered, so that `check` was a whole one."""
        return self._seen is not None

    def check(self, plan: ExportPlan, facts: ModelFacts | None) -> None:
        """Raise UsageError for what it does not cover, ToolchainError where daemon or image are of no use."""
        with contextlib.suppress(inspection.Unasked):
            self.inner = self._inner(plan, facts)
            image, _ = self._inspected()
            if plan.compile and plan.device in _APPLE:
                raise UsageError(
                    f"A library for {plan.device} cannot be made in a container.",
                    why="Apple's compilers run on Macs only, containers have Linux.",
                    remedy="Use mlc_llm itself on a Mac (engine.backend = mlc_llm), or make weights and "
                    "configuration only.",
                    fix="compile",
                )
            if plan.compile and plan.device in _OF_THE_HOST and not _is_this_machine(image.architecture):
                raise UsageError(
                    f"A container makes a library for {plan.device} on Linux, {image.architecture}, which "
                    "this machine is not.",
                    remedy="Use another backend (engine.backend), choose another target, or make weights and "
                    "configuration only.",
                    fix="compile",
                )

    def _inner(self, plan: ExportPlan, facts: ModelFacts | None) -> Backend:
        """Whose commands are run in containers: those of the embedded compiler, where it covers `plan`."""
        embedded = EmbeddedBackend()
        try:
            embedded.cover(plan, facts)
        except UsageError as lack:
            if inspection.client() is None:
                raise
            image, _ = self._inspected()
            if not image.mlc_llm:
                also = f"An image built with --build-arg MLC_LLM_WHEELS=... has mlc_llm, which may: {BUILD}"
                remedy = "\n".join(filter(None, (lack.remedy, also)))
                raise UsageError(lack.what, why=lack.why, remedy=remedy, fix=lack.fix) from None
            found = OfficialBackend(found=self._look_into(image))
            found.check(plan, facts)
            return found
        return embedded

    def reason(self) -> str:
        """Where the stages will run, in one sentence."""
        try:
            image, daemon = self._inspected()
        except inspection.Unasked:
            return f"in containers of {inspection.IMAGE}, which Docker is asked for before a run."
        where = f"in containers of {image.name}, {'Podman' if daemon.podman else 'Docker'} {daemon.version}"
        if isinstance(self.inner, OfficialBackend):
            where += f", by its {self.inner.found.module} {self.inner.found.version}"
        if image.architecture == daemon.architecture:
            return f"{where}."
        better = BUILD.replace("build", f"build --platform linux/{daemon.architecture}", 1)
        return (
            f"{where}. The image is for {image.architecture}, which is emulated on {daemon.architecture}: "
            f"slow, and TVM may crash. Better: {better}"
        )

    def commands(self, plan: ExportPlan, folders: Folders) -> tuple[StageCommand, ...]:
        """The inner backend's stages, each in a container."""
        image, daemon = self._inspected()
        mounted = mounts.of(folders)
        settings = (*_user(daemon), *_platform(image, daemon), "-e", RECORDS_VARIABLE, *mounted.flags())
        key = hashlib.sha256(os.fsencode(folders.output)).hexdigest()[:12]
        found = []
        for command in self.inner.commands(plan, folders):
            name = f"mlc-wizard-{key}-{command.stage}"
            words = [_PROGRAMS.get(word) or mounted.inside(word) for word in command.argv]
            found.append(
                StageCommand(
                    stage=command.stage,
                    argv=(
                        *(*official.CLIENT, "run", "--rm", "-i", "--name", name, "--pull", "never"),
                        *("--network", "none", *settings, image.name),
                        *("run", "--mounted", mounts.MODEL, "--mounted", mounts.OUTPUT, *words),
                    ),
                    inputs=command.inputs,
                    identity=command.argv[1:],
                    versions={**command.versions, image.name: image.id},
                )
            )
        return tuple(found)

    def _inspected(self) -> tuple[Image, Daemon]:
        """Image and daemon as first seen, so that a run is of one image."""
        if self._seen is None:
            look_at_image, look_at_daemon = self._look
            daemon, image = look_at_daemon(), look_at_image()
            if not image.ours or image.version != version.installed():
                raise ToolchainError(
                    f"The image {image.name} is not of this version of mlc-wizard.",
                    why=f"It has {image.version or 'none'}, this is {version.installed()}."
                    if image.ours
                    else "It was not built from docker/Dockerfile.mlc.",
                    remedy=f"In a checkout of mlc-wizard: {BUILD}",
                )
            self._seen = image, daemon
        return self._seen


def _user(daemon: Daemon) -> tuple[str, ...]:
    """What makes files of the container those of the calling user.

    Without it they are root's. Rootless daemons, and Docker Desktop's virtual machine, map root to the
    calling user themselves; WSL's file system is not mapped.
    """
    found: tuple[str, ...] = ()
    if sys.platform == "linux":
        if daemon.rootless or (daemon.desktop and "microsoft" not in platform.release().lower()):
            found = ("--user", "0:0")
        else:
            found = ("--user", f"{os.getuid()}:{os.getgid()}")
    if daemon.remapped:
        found = ("--userns", "host", *found)
    if daemon.selinux:
        # The other way, :z, would relabel the user's folders for good.
        found = ("--security-opt", "label=disable", *found)
    return found


def _platform(image: Image, daemon: Daemon) -> tuple[str, ...]:
    """Asked for by name, an image of another processor runs without a warning for each container."""
    return () if image.architecture == daemon.architecture else ("--platform", f"linux/{image.architecture}")


def _is_this_machine(architecture: str) -> bool:
    own = inspection.ARCHITECTURES.get(platform.machine(), platform.machine())
    return sys.platform == "linux" and own == architecture
