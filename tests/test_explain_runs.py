"""Known failures among what the stages of a run say: told as its cause, or rightly not."""

from collections.abc import Callable
from pathlib import Path

import pytest
from explain_support import explain, found
from runner_stand_ins import StandIn
from runner_support import ended, failure, finish, plan_for

from engine.events import Output
from engine.explain.match import QUOTED
from engine.shell import shell_line

MISMATCH = "ValueError: Parameter not found in source: lm_head.q_weight"


def printing(*lines: str, code: int = 1) -> str:
    """A program that prints `lines`, without having them in its own text, which stands in the log too."""
    hidden = "\n".join(lines).encode().hex()
    return f"print(bytes.fromhex({hidden!r}).decode())\nraise SystemExit({code})"


def test_a_stage_that_fails_in_a_known_way(
    tmp_path: Path, stand_in: Callable[..., StandIn], capsys: pytest.CaptureFixture[str]
) -> None:
    plan = plan_for(tmp_path)
    events = finish(plan, backend=stand_in(convert_weight=printing(MISMATCH, "Aborted")))
    told = failure(events)
    assert (
        told.what
        == "convert_weight failed: The weights are not those of the model that config.json describes."
    )
    assert told.why.endswith(f"\n{QUOTED}{MISMATCH}")
    assert "Merge the adapter" in told.remedy
    assert "mlc-wizard.log" in told.remedy
    assert ended(events).exit_code == 2
    # The log quotes the line once more; the finding is where the stage said it.
    assert explain(str(plan.output)) == 0
    (place, *_), lines = capsys.readouterr().out.splitlines(), (plan.output / "mlc-wizard.log").read_text()
    number = 1 + next(n for n, line in enumerate(lines.splitlines()) if line.endswith(MISMATCH))
    assert place.startswith(f"{plan.output / 'mlc-wizard.log'}:{number}: ")
    assert "times" not in place


def test_the_stage_knows_best(tmp_path: Path, stand_in: Callable[..., StandIn]) -> None:
    """Its own words win over what its lines look like."""
    code = (
        f"import sys; print({MISMATCH!r})\n"
        'sys.stderr.write("\\x1e" + \'{"error": {"what": "Its own words.", "exit_code": 3}}\' + "\\n")\n'
        "raise SystemExit(3)"
    )
    told = failure(finish(plan_for(tmp_path), backend=stand_in(convert_weight=code)))
    assert told.what == "Its own words."


@pytest.mark.parametrize(
    "line",
    [
        "Not found: No available device detected",  # a symptom
        "./x: emcc: command not found",  # not in this stage
        "INFO auto_device.py:91: Not found device: rocm:0",  # noise
    ],
)
def test_what_cannot_be_the_cause_is_not_told_as_it(
    line: str, tmp_path: Path, stand_in: Callable[..., StandIn]
) -> None:
    told = failure(finish(plan_for(tmp_path), backend=stand_in(convert_weight=printing(line, "The end."))))
    assert told.what == "convert_weight failed with exit code 1."
    assert told.why == "Its last line: The end."


def test_a_stage_that_succeeds_may_print_anything(tmp_path: Path, stand_in: Callable[..., StandIn]) -> None:
    from runner_stand_ins import CONVERT

    events = finish(plan_for(tmp_path), backend=stand_in(convert_weight=f"print({MISMATCH!r})\n{CONVERT}"))
    assert ended(events).exit_code == 0


def test_a_log_of_ours_is_no_failure(tmp_path: Path) -> None:
    """A real export with a library: nothing that its stages and its log say is a known failure."""
    plan = plan_for(tmp_path, device="cpu", compile=True)
    events = finish(plan)
    assert ended(events).exit_code == 0
    said = [line for event in events if isinstance(event, Output) for line in event.lines]
    assert said
    assert not found(said)
    assert explain(str(plan.output)) == 1
    assert shell_line(["engine.embedded", "compile"]) in (plan.output / "mlc-wizard.log").read_text()
