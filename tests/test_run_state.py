"""engine.run.state: what is believed of state.json, and that nothing is touched on the word of another."""

import json
from pathlib import Path
from typing import Any

import pytest

from engine.run import resume
from engine.run.state import File, StageState, read_state, write_state
from engine.run.workspace import Workspace

STATE = StageState(
    fingerprint="f",
    committing=True,
    seconds=2,
    files=[File(name="sub/a.json", size=1, mtime_ns=2, sha256="c")],
    stale=["b.bin"],
    result={"conv_template": "x"},
)


BROKEN = {
    "empty": lambda _: "",
    "no JSON": lambda _: "\x00\xff",
    "a list": lambda _: "[]",
    "too deep": lambda _: "[" * 100_000,
    "a newer version": lambda document: {**document, "version": 2},
    "a stage that there is not": lambda document: changed(document, "../x", document["stages"]["gen_config"]),
    "a stage of another type": lambda document: changed(document, "gen_config", []),
    "stale of another type": lambda document: inside(document, stale=None),
    "a result of another type": lambda document: inside(document, result=["a"]),
    "seconds of another type": lambda document: inside(document, seconds="1"),
    "truth for a number": lambda document: inside(document, seconds=True),
    "a key of tomorrow": lambda document: inside(document, colour="red"),
    "a file outside": lambda document: inside(document, stale=["../precious"]),
    "a file anywhere": lambda document: inside(document, stale=["/precious"]),
}


def changed(document: dict[str, Any], stage: str, entry: object) -> dict[str, Any]:
    return {**document, "stages": {**document["stages"], stage: entry}}


def inside(document: dict[str, Any], **values: object) -> dict[str, Any]:
    return changed(document, "gen_config", {**document["stages"]["gen_config"], **values})


def home_with(folder: Path, text: str) -> Path:
    home = folder / ".mlc-wizard"
    home.mkdir()
    (home / "state.json").write_text(text)
    return home


def test_a_state_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_state(tmp_path, {"gen_config": STATE, "fetch": StageState()})
    assert read_state(tmp_path) == {"gen_config": STATE, "fetch": StageState()}


@pytest.mark.parametrize("name", BROKEN)
def test_a_state_that_no_run_wrote_is_none(tmp_path: Path, name: str) -> None:
    """Stages run again then; a commit under way that it claims removes and moves nothing."""
    precious = tmp_path / "precious"
    precious.write_text("mine")
    output = tmp_path / "out"
    output.mkdir()
    write_state(tmp_path, {"gen_config": STATE})
    document = BROKEN[name](json.loads((tmp_path / "state.json").read_text()))
    home = home_with(output, document if isinstance(document, str) else json.dumps(document))
    with pytest.raises(ValueError):  # noqa: PT011  of json's, or of its own; nobody reads the text
        read_state(home)
    assert resume.unfinished(tmp_path) == []
    with Workspace.locked(output, "model-cpu.so") as workspace:
        assert workspace.stages == {}
    assert precious.read_text() == "mine"
