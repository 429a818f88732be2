"""The pictures of the README are those of the application as it is."""

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "screenshots"
README = (ROOT / "README.md").read_text(encoding="utf-8")

_spec = importlib.util.spec_from_file_location("take", FOLDER / "take.py")
assert _spec is not None
assert _spec.loader is not None
take = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(take)


async def test_the_pictures_are_of_this_application(tmp_path: Path) -> None:
    """Drives all of it through a real export, and compares what it draws with what was drawn."""
    drawn = await take.take(tmp_path)
    assert list(drawn) == list(take.NAMES)
    kept = {name: (FOLDER / f"{name}.svg").read_text(encoding="utf-8") for name in take.NAMES}
    outdated = [name for name in take.NAMES if drawn[name] != kept[name]]
    assert not outdated, f"out of date: {', '.join(outdated)}; python screenshots/take.py takes them again"


@pytest.mark.parametrize("name", take.NAMES)
def test_a_png_is_of_its_svg(name: str) -> None:
    svg, png = FOLDER / f"{name}.svg", (FOLDER / f"{name}.png").read_bytes()
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    assert take.digest_of(png) == take.digest(svg.read_text(encoding="utf-8"))


def test_the_digest_tells_pictures_apart() -> None:
    labelled = take._labelled((FOLDER / "start.png").read_bytes(), b"other")
    assert take.digest_of(labelled) == b"other"
    assert take.digest("one") != take.digest("two")


def test_every_picture_is_shown_and_no_other() -> None:
    shown = re.findall(r"!\[[^\]]+\]\(screenshots/([\w.]+)\)", README)
    assert set(shown) == {f"{name}.png" for name in take.NAMES}
    kept = {path.name for path in FOLDER.iterdir() if path.suffix in (".png", ".svg")}
    assert kept == {f"{name}{suffix}" for name in take.NAMES for suffix in (".png", ".svg")}
