"""What findings mean for each target, and how they are put into words."""

import os
from pathlib import Path
from typing import Any

import pytest

from engine.catalog import TARGETS
from engine.toolchain import report, verdict
from engine.toolchain.finding import NOTHING, Finding, Remedy, running
from engine.toolchain.probe import Probe
from engine.toolchain.registry import BY_ID, PROBES


def finding_of(name: str, status: Any = "ok", **changes: Any) -> Finding:
    return BY_ID[name].finding(status, "something", **changes)


ALL_WELL = [finding_of(probe.id) for probe in PROBES]


def judged(*changed: Finding, pending: tuple[Probe, ...] = ()) -> dict[str, verdict.Verdict]:
    by_id = {finding.id: finding for finding in ALL_WELL} | {finding.id: finding for finding in changed}
    left = [finding for name, finding in by_id.items() if name not in {probe.id for probe in pending}]
    return {v.target: v for v in verdict.verdicts(left, pending)}


def test_all_well() -> None:
    verdicts = judged()
    assert list(verdicts) == list(TARGETS)
    for target in ("webgpu", "cpu"):
        assert verdicts[target].state == "works"
        assert verdicts[target].backends[0] == "embedded"
        assert (
            verdicts[target].sentence(BY_ID) == "works with the embedded, the mlc_llm and the docker backend"
        )


def test_a_missing_part_counts_against_those_that_need_it_alone() -> None:
    verdicts = judged(finding_of("wasm-runtime", "broken"))
    assert verdicts["cpu"].backends[0] == "embedded"
    assert verdicts["webgpu"].lacking["embedded"] == ("wasm-runtime",)
    verdicts = judged(finding_of("git-lfs", "missing"), finding_of("node", "missing"))
    assert verdicts == judged()


def test_what_nobody_misses_is_not_marked_as_a_fault() -> None:
    marked = {name: next(report.row(finding_of(name, "missing"), None))[0] for name in ("git-lfs", "zig")}
    assert marked == {"git-lfs": "-", "zig": "✗"}
    assert next(report.row(finding_of("emcc", "missing"), None, brief=True)).startswith("- missing")
    assert next(report.row(finding_of("git-lfs", "broken"), None)).startswith("✗ broken")


def test_tvm_missing_is_all_of_the_embedded_backend() -> None:
    for v in judged(finding_of("tvm", "missing")).values():
        assert "embedded" not in v.backends
        if "embedded" in verdict.covering(v.target):
            assert v.lacking["embedded"] == ("tvm",)
            assert "apache-tvm" in v.sentence(BY_ID) or v.backends


def test_of_what_is_lacking_the_first_of_each_group_is_named() -> None:
    names = ("docker", "docker-daemon", "docker-image", "docker-mlc_llm", "mlc_llm", "vulkan-loader")
    told = judged(*(finding_of(name, "missing") for name in names))["vulkan"]
    assert told.lacking["docker"] == names[:4]
    assert told.sentence(BY_ID) == (
        "the mlc_llm backend lacks mlc_llm and Vulkan loader; the docker backend lacks Docker"
    )


def test_warnings_block_nothing() -> None:
    assert judged(*(finding_of(probe.id, "warn") for probe in PROBES)) == judged()


def test_a_finding_may_narrow_whom_it_blocks() -> None:
    verdicts = judged(finding_of("tvm-codegen", "broken", needed_for={"embedded": ("webgpu",)}))
    assert "embedded" not in verdicts["webgpu"].backends
    assert "embedded" in verdicts["cpu"].backends


def test_unknown_until_what_is_needed_was_looked_at() -> None:
    tvm = BY_ID["tvm"]
    alone = (finding_of("docker", "missing"), finding_of("mlc_llm", "missing"))
    assert judged(*alone, pending=(tvm,))["cpu"].state == "unknown"
    assert judged(*alone, pending=(BY_ID["node"],))["cpu"].state == "works"
    assert judged(*alone, finding_of("zig", "broken"), pending=(tvm,))["cpu"].state == "missing"
    assert judged(pending=(tvm,))["cpu"].backends == ("mlc_llm", "docker")


# --- text ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [20, 40, 80, 100])
def test_rows_keep_within_their_width_and_lose_nothing(width: int) -> None:
    row = finding_of("emcc", "missing", remedy=Remedy(told="Install it. " * 9, commands=("a " * 60,)))
    lines = list(report.row(row, width))
    *text, command = lines
    assert all(len(line) <= width for line in text)
    assert command.strip() == ("a " * 60).strip()
    told = "".join("".join(text).split())  # long words are broken where they must be
    for part in (row.title, row.found, row.wanted, row.why, row.remedy.told):
        assert "".join(part.split()) in told


def test_the_report_hides_the_home_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    finding = finding_of("python")
    text = report.text(
        [BY_ID["python"].finding("ok", f"in {tmp_path / 'venv'}"), finding], verdict.verdicts([]), BY_ID
    )
    assert str(tmp_path) not in text
    assert f"in ~{os.sep}venv" in text
    assert text.isascii()


def test_a_remedy_for_another_environment() -> None:
    remedy = running(
        "Make /one/env.",
        ("python", "-m", "venv", "/one/env"),
        ("/one/env/bin/pip", "install"),
        environment="/one/env",
    )
    moved = remedy.elsewhere("/other")
    assert moved.runs == (("python", "-m", "venv", "/other"), ("/other/bin/pip", "install"))
    assert (moved.told, moved.environment) == ("Make /other.", "/other")
    assert remedy.safe
    assert not NOTHING.safe
