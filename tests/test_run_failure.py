"""engine.run.failure: which disk is full."""

import tempfile
from pathlib import Path

import pytest

from engine.errors import WizardError
from engine.run import failure

FULL = "No space left on device"


def told(line: str, output: Path) -> WizardError:
    return failure.of_stage(
        "compile", 1, None, ["before", line, "after"], output=output, remedy="See the log."
    )


def test_a_full_disk_of_temporary_files_is_not_that_of_the_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setenv("TMPDIR", str(place))
    monkeypatch.setattr(tempfile, "tempdir", None)
    output = tmp_path / "out"
    error = told(f"InternalError: Cannot open file: {place}/x/lib0.o {FULL}", output)
    assert error.what.startswith(f"No space left on the disk that holds {place}")
    assert "lib0.o" in error.why
    assert "TMPDIR" in error.remedy
    assert error.fix == "resume"
    for line in (f"OSError: [Errno 28] {FULL}", f"OSError: [Errno 28] {FULL}: '{output}/x'"):
        error = told(line, output)
        assert error.what == f"No space left on the disk that holds {output}."
        assert error.fix == "output"


def test_an_export_among_temporary_files_is_the_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert told(f"OSError: {FULL}: '{tmp_path}/out/x'", tmp_path / "out").fix == "output"
