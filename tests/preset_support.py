"""What tests of presets share: folders of their own, a minimal preset, refusals."""

from pathlib import Path

import pytest

from engine import preset
from engine.errors import UsageError

MINIMAL = 'version = 1\n[model]\nsource = "builtin:demo"\n[quantization]\nmode = "q4f32_1"\n'


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of user presets, and an empty current folder."""
    folder = tmp_path / "config" / "presets"
    folder.mkdir(parents=True)
    monkeypatch.setattr(preset, "user_folder", lambda: folder)
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    return folder


def write(folder: Path, text: str | bytes, name: str = "p.toml") -> str:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def refused(name: str, *overrides: str) -> UsageError:
    with pytest.raises(UsageError) as caught:
        preset.load(name, overrides)
    assert caught.value.exit_code == 2
    return caught.value
