"""engine.paths: what people type and environments state, where no system could have it."""

import dataclasses
import errno
import os
from pathlib import Path

import pytest

from engine import paths, preset
from engine.backends.embedded import EmbeddedBackend
from engine.embedded.wasm import cache
from engine.errors import ToolchainError, UsageError
from engine.explain import log_file
from engine.model import nearby, source
from engine.toolchain import report
from tui.widgets.source_input import complete_folder

NOBODY = "~no-such-user-anywhere"
LONG = "a" * 300


def test_names_that_no_file_can_have_are_no_error(tmp_path: Path) -> None:
    for name in (LONG, f"{LONG}/{LONG}", "a\0b"):
        assert not paths.is_file(tmp_path / name)
        assert not paths.is_folder(tmp_path / name)
        assert not paths.is_taken(tmp_path / name)
        assert not paths.are_same(tmp_path / name, tmp_path)


@pytest.mark.skipif(os.name != "posix", reason="links need a privilege")
def test_links(tmp_path: Path) -> None:
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "here").symlink_to(".")
    for name in ("dangling", "loop"):
        assert paths.is_taken(tmp_path / name)
        assert not paths.is_folder(tmp_path / name)
    assert paths.are_same(tmp_path / "here", tmp_path)
    assert source.from_preset("./loop", tmp_path) == str(tmp_path.resolve() / "loop")


@pytest.mark.parametrize(
    "use",
    [
        paths.expanded,
        preset.find,
        log_file.path_of,
        lambda text: source.from_preset(text, Path()),
        lambda text: source.adapter_from_preset(text, Path()),
    ],
)
def test_the_home_of_nobody_is_told(use) -> None:
    with pytest.raises(UsageError, match="no-such-user") as caught:
        use(f"{NOBODY}/x")
    assert caught.value.remedy


def test_completion_of_the_home_of_nobody_is_none() -> None:
    assert complete_folder(f"{NOBODY}{os.sep}x") is None


@pytest.mark.skipif(os.name != "posix", reason="other systems know every user")
def test_a_user_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `docker run --user 12345` has: no HOME, no entry in the list of users."""
    import pwd

    def unknown(_id: int) -> object:
        raise KeyError(_id)

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "MLC_WIZARD_CACHE", "HF_HOME", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    assert "demo" in [entry.name for entry in preset.list_presets()]
    assert preset.find("demo") == preset.shipped_folder() / "demo.toml"
    assert nearby.hub_cache().parts[0] == "~", "the Hub client takes it so, too"
    assert "Python" in report.text([], [], {})
    plan = preset.load("demo")
    EmbeddedBackend().check(dataclasses.replace(plan, compile=False), None)
    for ask in (cache.root, preset.user_folder, lambda: EmbeddedBackend().check(plan, None)):
        with pytest.raises(ToolchainError, match="no home folder") as caught:
            ask()
        assert "HOME" in caught.value.remedy
    monkeypatch.setenv("MLC_WIZARD_CACHE", "/somewhere")
    assert cache.root() == Path("/somewhere")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.EMFILE, "Too many open files", "x"), "Too many open files"),
        (OSError(errno.EAGAIN, "Resource temporarily unavailable"), "temporarily unavailable"),
        (
            PermissionError(errno.EACCES, "Permission denied", "/a/b"),
            "/a/b cannot be used: Permission denied",
        ),
        (OSError(errno.EIO, "Input/output error", b"/a/b"), "/a/b cannot be used"),
    ],
)
def test_what_the_system_refuses_is_told(error: OSError, said: str) -> None:
    told = paths.told(error)
    assert said in told.what
    assert told.remedy
