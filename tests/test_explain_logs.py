"""`mlc-wizard explain`: any log, however it was written, searched for known failures."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from explain_support import explain, found
from hypothesis import given
from hypothesis import strategies as st

from engine.explain import log_file


def test_a_log_is_explained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "build.log"
    log.write_text(
        "one\n\x1b[31mValueError\x1b[0m: Unknown model type: t5. Available ones: ['llama']\nKilled\n"
    )
    assert explain(str(log)) == 0
    told = capsys.readouterr()
    assert told.out.startswith(f"{log}:3: Killed\n  The system ended the process")
    assert f"\n{log}:2: ValueError: Unknown model type: t5." in told.out
    assert "\x1b" not in told.out
    assert "2 known failures in 3 lines, the most likely cause first." in told.err


def test_json_has_a_finding_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "build.log"
    log.write_text("No module named 'tvm'\nFunction ffi.GetKwargsObject not found\n")
    assert explain("--json", str(log)) == 0
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert (first["code"], first["line"], first["count"]) == ("mismatched-packages", 2, 1)
    assert first["text"] == "Function ffi.GetKwargsObject not found"
    assert first["why"]
    assert first["remedy"]
    assert (second["code"], second["symptom"], second["targets"]) == ("tvm-missing", False, [])


def test_a_log_without_a_known_failure_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "build.log"
    log.write_text("all is well\n\n")
    assert explain(str(log)) == 1
    told = capsys.readouterr()
    assert not told.out
    assert "No known failure in 2 lines.\nThe last one: all is well\n" in told.err
    log.write_text("")
    assert explain(str(log), "--json") == 1
    assert capsys.readouterr() == ("", "No known failure in 0 lines.\n")


def test_a_symptom_is_told_with_a_doubt(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "build.log"
    log.write_text("Not found: No available device detected\n" * 3)
    assert explain(str(log)) == 0
    told = capsys.readouterr().out
    assert "(3 times, this is the last)" in told
    assert "Perhaps: " in told


@pytest.mark.parametrize("make", ["missing", "folder", "binary"])
def test_what_is_no_log_is_refused(make: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "log"
    if make == "folder":
        path.mkdir()
    elif make == "binary":
        path.write_bytes(b"\x7fELF\x02\x01\0\0" * 100)
    assert explain(str(path)) == 2
    told = capsys.readouterr()
    assert not told.out
    assert "is not text" in told.err if make == "binary" else "There is no file" in told.err


def test_the_folder_of_an_export_is_its_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mlc-wizard.log").write_text("Killed\n")
    assert explain(str(tmp_path)) == 0
    assert "Killed" in capsys.readouterr().out


def test_standard_input_is_a_log() -> None:
    command = [sys.executable, "-m", "tui", "explain", "-"]
    text = "No module named 'tvm'\n" + "x" * 200_000 + "\nKilled"
    done = subprocess.run(
        command, input=text, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1]
    )
    assert done.returncode == 0
    assert "stdin:3: Killed" in done.stdout
    assert "stdin:1: No module named 'tvm'" in done.stdout


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_encodings_that_shells_write(encoding: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("größer\r\nKilled\r\n", encoding=encoding)
    assert [line for batch in log_file.read(str(log)) for line in batch] == ["größer", "Killed"]


@given(
    text=st.text(st.characters(exclude_categories=["Cs", "Cc"], include_characters="\n")),
    size=st.integers(1, 9),
)
def test_lines_are_whole_however_they_are_read(
    text: str, size: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    log = tmp_path_factory.mktemp("logs") / "log"
    log.write_bytes(text.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(log_file, "CHUNK", max(size, 4))
        read = [line for batch in log_file.read(str(log)) for line in batch]
    expected = text.removeprefix("\ufeff").split("\n")
    assert read == (expected[:-1] if expected[-1] == "" else expected)


def test_a_line_of_any_length_takes_no_more_memory_than_its_limit(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("wb") as stream:
        for _ in range(4):
            stream.write(b"y" * (1 << 20))
        stream.write(b"\nKilled\n")
    lines = [line for batch in log_file.read(str(log)) for line in batch]
    assert [len(line) for line in lines] == [log_file.LONGEST, len("Killed")]
    assert [(f.known.code, f.number) for f in found(lines)] == [("out-of-memory", 2)]


def test_an_error_behind_a_progress_bar_is_seen(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"\r 10%|#   |\r 20%|##  |No module named 'tvm'\r 30%|### |\n")
    assert [f.known.code for f in found(line for batch in log_file.read(str(log)) for line in batch)] == [
        "tvm-missing"
    ]
