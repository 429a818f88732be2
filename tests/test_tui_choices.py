"""What the steps decide and say, apart from any screen."""

import ast
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from published_models import GEMMA, LLAMA_1B, SMOL, model

import engine
from engine import advice, headless
from engine.choices import quantization_choices
from engine.errors import Fix, UsageError, WizardError
from engine.estimate import estimate
from engine.machine import Machine
from engine.model.facts import ModelFacts
from engine.plan import BUILTIN_DEMO, ExportPlan, with_defaults
from engine.run.state import File
from engine.units import MIB, mebibytes, megabytes
from tui import describe, sizes
from tui.advice_table import STEP_AND_TITLE, for_step
from tui.screens.context import table
from tui.screens.quantize import HEADING, rows
from tui.screens.review import Reviewed, machine_rows, output_told
from tui.steps import NAMES
from tui.widgets.choice_list import Choice, headline, layout, row, shortened
from tui.widgets.rows import columns

CONTEXT, PREFILL, WINDOW = sizes.FIELDS
WIDE = model("llama", 256000, 2304, 9216, 26, 8, 4, 256)
"""Its embedding has 2.2 GiB in float32."""


def plan(**changes: Any) -> ExportPlan:
    return ExportPlan(**({"source": "org/model", "quantization": "q0f16"} | changes))


def test_every_advice_has_its_step_and_title() -> None:
    source = "".join(path.read_text(encoding="utf-8") for path in Path(advice.__path__[0]).glob("*.py"))
    assert set(re.findall(r'code="([^"]+)"', source)) == set(STEP_AND_TITLE)
    assert {step for step, _ in STEP_AND_TITLE.values()} <= set(NAMES)


def test_advice_is_told_where_it_can_be_taken() -> None:
    found = advice.advise(plan(quantization="q4f16_1", context_window_size=99_999), GEMMA)
    assert "q4-small-model" in {a.code for a in for_step("quantize", found)}
    assert "context-above-model" in {a.code for a in for_step("context", found)}
    assert len(found) == sum(len(for_step(step, found)) for step in NAMES)


@pytest.mark.parametrize(
    ("texts", "problem", "says"),
    [
        ({CONTEXT: "4096", PREFILL: "512"}, None, ""),
        ({CONTEXT: "", PREFILL: ""}, None, ""),
        ({CONTEXT: " 4096 ", PREFILL: ""}, None, ""),
        ({CONTEXT: "99999", PREFILL: "512"}, None, ""),  # advice speaks of it, nothing forbids it
        ({CONTEXT: "0", PREFILL: ""}, CONTEXT, "from 1 up"),
        ({CONTEXT: "-", PREFILL: ""}, CONTEXT, "whole number"),
        ({CONTEXT: "-1", PREFILL: ""}, CONTEXT, "number of tokens"),
        ({CONTEXT: "2147483648", PREFILL: ""}, CONTEXT, "whole number"),
        ({CONTEXT: "4096", PREFILL: "0"}, PREFILL, "from 1 up"),
        ({CONTEXT: "512", PREFILL: "1024"}, PREFILL, "1 to 512"),
        ({CONTEXT: "", PREFILL: "8192"}, PREFILL, "1 to 4,096"),
        ({CONTEXT: "", PREFILL: "", WINDOW: "512"}, WINDOW, "Leave this empty"),
        ({CONTEXT: "", PREFILL: "", WINDOW: "-1"}, None, ""),
        ({CONTEXT: "", PREFILL: "", WINDOW: ""}, None, ""),
    ],
)
def test_reading_sizes(texts: dict[str, str], problem: str | None, says: str) -> None:
    read = sizes.read(texts, plan(), GEMMA)
    assert set(read.problems) == ({problem} if problem else set())
    if problem:
        assert says in read.problems[problem]
    else:
        for field, text in texts.items():
            assert getattr(read.plan, field) == (int(text) if text.strip() else None)


@pytest.mark.parametrize(
    ("facts", "changes", "context", "prefill"),
    [
        (GEMMA, {}, 4096, 1024),
        (GEMMA, {"device": "iphone"}, 2048, 128),
        (replace(GEMMA, max_context=512), {}, 512, 512),
        (None, {}, 4096, 1024),
        (GEMMA, {"context_window_size": 256}, 4096, 256),
    ],
)
def test_what_empty_fields_come_to(
    facts: ModelFacts | None, changes: dict[str, Any], context: int, prefill: int
) -> None:
    chosen = plan(**changes)
    assert sizes.default_of(CONTEXT, chosen, facts) == context
    assert sizes.default_of(PREFILL, chosen, facts) == prefill
    assert f"Empty means {context:,}" in sizes.context_limits(chosen, facts)
    assert f"Empty means {prefill:,}" in sizes.prefill_limits(chosen, facts)


def test_steps_end_at_the_limit() -> None:
    assert sizes.steps(CONTEXT, plan(), SMOL) == (512, 1024, 2048, 4096, 8192)
    assert sizes.steps(CONTEXT, plan(), replace(SMOL, max_context=3000)) == (512, 1024, 2048, 3000)
    assert sizes.steps(CONTEXT, plan(), LLAMA_1B) == (1024, 2048, 4096, 8192, 16384, 32768, 131072)
    assert len("  ".join(f"{size:,}" for size in sizes.steps(CONTEXT, plan(), LLAMA_1B))) <= 56
    assert sizes.steps(PREFILL, plan(context_window_size=300), SMOL) == (64, 128, 256)
    assert sizes.steps(PREFILL, plan(context_window_size=10), SMOL) == (10,)


@pytest.mark.parametrize(
    ("current", "up", "stepped"),
    [(100, True, 512), (512, True, 1024), (4000, True, 1024), (4000, False, 1024), (512, False, 512)],
)
def test_stepping(current: int, up: bool, stepped: int) -> None:
    assert sizes.step_from(current, (512, 1024), up) == stepped


@given(
    tokens=st.integers(1, 40_000),
    mode=st.sampled_from(["q0f16", "q0f32", "q4f16_1"]),
    batch=st.integers(1, 3),
    facts=st.sampled_from([GEMMA, SMOL, LLAMA_1B]),
)
def test_the_formula_of_the_kv_cache_comes_to_its_size(
    tokens: int, mode: str, batch: int, facts: ModelFacts
) -> None:
    chosen = plan(quantization=mode, context_window_size=tokens, max_batch_size=batch)
    _, size, formula = sizes.costs(chosen, facts)[0]
    exact = estimate(facts, with_defaults(chosen, facts.max_context)).kv_cache_bytes
    assert size == describe.mebibytes(exact)
    each, count, conversations = re.fullmatch(  # type: ignore[union-attr]
        r"([\d.]+) KiB a token x ([\d,]+)(?: x (\d) conversations)?", formula
    ).groups()
    told = float(each) * 1024 * int(count.replace(",", "")) * int(conversations or 1)
    assert 0 <= exact - told < 16 * float(each) * 1024 * batch + 1  # the last page is not full


@pytest.mark.parametrize(
    ("facts", "mode", "says"),
    [
        (GEMMA, "q4f16_1", "within every device's 128 MiB"),
        (GEMMA, "q0f16", "above some devices' 128 MiB"),
        (WIDE, "q0f32", "limit of 1 GiB"),
    ],
)
def test_what_a_browser_can_hold(facts: ModelFacts, mode: str, says: str) -> None:
    assert any(says in row[2] for row in sizes.costs(plan(quantization=mode), facts))
    assert not any("WebGPU" in row[2] for row in sizes.costs(plan(quantization=mode, device="cpu"), facts))


def test_costs_and_windows_of_a_model_not_read_yet() -> None:
    assert sizes.costs(plan(), None) == []
    assert "once the model" in table([], 40).plain
    assert sizes.window_told(plan(), None) == sizes.window_told(plan(), SMOL) == ""
    assert sizes.window_told(plan(), GEMMA).startswith("The latest 512 tokens in 18 of 18 layers")
    assert sizes.window_told(plan(sliding_window_size=64), GEMMA) == ""


@pytest.mark.parametrize(
    ("better", "words"),
    [
        ({"quantization": "q0f16"}, "Use q0f16"),
        (
            {"context_window_size": 4096, "prefill_chunk_size": 1024},
            "Use context 4,096, prefill chunk 1,024",
        ),
        ({"sliding_window_size": -1}, "Use no sliding window"),
        ({"conv_template": "none"}, "Use template none"),
    ],
)
def test_offers(better: dict[str, Any], words: str) -> None:
    assert describe.offer(better) == words


@pytest.mark.parametrize(
    ("chosen", "name", "makes"),
    [
        (plan(source=BUILTIN_DEMO), "demo model", "webgpu"),
        (plan(source="org/model", device="cuda", compile=False), "org/model", "cuda, weights only"),
        (plan(source=str(Path.cwd() / "my-model")), "my-model", "webgpu"),
        (plan(source=""), "", "webgpu"),
    ],
)
def test_a_plan_in_words(chosen: ExportPlan, name: str, makes: str) -> None:
    found = dict(describe.decisions(chosen))
    assert found["model"] == (name or "not chosen")
    assert found["target"] == describe.makes(chosen) == makes
    assert describe.source_name(chosen) == name
    assert "revision" not in found


def test_rare_choices_are_told_where_they_were_made() -> None:
    assert dict(describe.decisions(plan(lora_adapter="org/lora@v2")))["adapter"] == "org/lora@v2"
    folder = str(Path.cwd() / "lora")
    assert dict(describe.decisions(plan(lora_adapter=folder)))["adapter"] == "lora"
    assert "adapter" not in dict(describe.decisions(plan()))
    found = dict(describe.decisions(plan(revision="abc", conv_template="none", max_batch_size=2)))
    assert (found["revision"], found["template"], found["batch"]) == ("abc", "none", "2")


@pytest.mark.parametrize(
    ("size", "files", "memory"),
    [
        (0, "0.0 MB", "0.0 MiB"),
        (1_500_000, "1.5 MB", "1.4 MiB"),
        (536_196_352, "536 MB", "511 MiB"),
        (16_060_522_496, "16.1 GB", "15.0 GiB"),
        (1_089_000_000, "1.1 GB", "1.0 GiB"),
        (10 * MIB, "10 MB", "10 MiB"),
        (99_999, "100.0 kB", "97.7 KiB"),
        (500, "0.5 kB", "0.5 KiB"),
    ],
)
def test_sizes_in_words(size: int, files: str, memory: str) -> None:
    assert (megabytes(size), mebibytes(size)) == (files, memory)


@given(text=st.text("ab/ \\-", max_size=60), width=st.integers(1, 30))
def test_breaking_lines_loses_nothing(text: str, width: int) -> None:
    lines = describe.broken(text, width)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert all(len(line) <= width for line in lines)


@given(value=st.text("abc/ ", max_size=80), width=st.integers(20, 60))
def test_rows_keep_their_width(value: str, width: int) -> None:
    assert all(line.cell_length <= width for line in columns([("model", value)], width))


@given(width=st.integers(1, 120), beside=st.booleans(), heading=st.booleans())
def test_choices_fit_any_width(width: int, beside: bool, heading: bool) -> None:
    found = rows(quantization_choices(plan(), GEMMA))
    lay = layout(found, HEADING if heading else (), width, beside=beside)
    smallest = lay.name + 2 + 2 + 2 + len("warning") + 2
    texts = [row(choice, lay, chosen=choice.name == "q0f16") for choice in found]
    assert all(
        line.cell_length <= max(width, smallest)
        for text in [*texts, *([headline(HEADING, lay)] if heading else [])]
        for line in text.split("\n")
    )


def test_figures_leave_from_the_right_where_it_is_narrow() -> None:
    found = rows(quantization_choices(plan(), GEMMA))
    assert [len(layout(found, HEADING, w, beside=False).figures) for w in (80, 60, 40, 25)] == [3, 2, 1, 0]
    wide = row(found[0], layout(found, HEADING, 80, beside=False), chosen=True).plain
    assert "536,196,352" in wide
    assert wide.startswith("● q0f16")


def test_a_refused_row_gives_its_reason_instead_of_its_sentence() -> None:
    found = [Choice(name="q9", sentence="Nine bits.", refused="not in this version")]
    text = row(found[0], layout(found, (), 60, beside=False), chosen=False).plain
    assert text.startswith("✗ q9")
    assert "not in this version" in text
    assert "Nine bits." not in text


@given(text=st.text("ab ", max_size=30), width=st.integers(0, 30))
def test_shortened(text: str, width: int) -> None:
    assert len(shortened(text, width)) <= width
    assert shortened(text, 30) == text


def test_this_machine_has_it_or_not() -> None:
    found = estimate(GEMMA, with_defaults(plan(), None))
    roomy = Machine(ram_total=16 * 10**9, ram_available=8 * 10**9, disk_free=84 * 10**9)
    assert [value[0] for _, value in machine_rows(found, roomy)] == ["✓", "✓"]
    poor = Machine(ram_total=10**9, ram_available=10**8, disk_free=10**8)
    assert [value[0] for _, value in machine_rows(found, poor)] == ["▲", "▲"]
    assert "84.0 GB free" in machine_rows(None, roomy)[0][1]
    assert machine_rows(found, None) == [("machine", "being asked")]


def test_what_the_output_folder_holds() -> None:
    files = tuple(File(name=f"{n}.bin", size=10**8, mtime_ns=0, sha256="") for n in range(3))
    assert output_told(None) == ""
    assert output_told(Reviewed(plan())).startswith("Made by the run")
    assert "3 files of 300 MB" in output_told(Reviewed(plan(), files=files))
    assert output_told(Reviewed(plan(), error=WizardError("no"))) == ""


def test_the_detail_of_a_quantization() -> None:
    found = {c.quantization.name: c for c in quantization_choices(plan(), GEMMA)}
    assert "536,196,352 bytes in " in describe.quantization_detail(found["q0f16"])
    assert "stored as bfloat16" in describe.quantization_detail(found["q0f32"])
    assert "once the model" in describe.quantization_detail(quantization_choices(plan(), None)[0])
    refused = replace(found["q0f16"], refused=UsageError("no", why="because", remedy="--no-compile"))
    assert describe.quantization_detail(refused) == ""


@pytest.mark.parametrize("fix", get_args(Fix))
def test_every_remedy_names_a_key_at_the_screen_and_a_flag_elsewhere(
    fix: Fix, capsys: pytest.CaptureFixture[str]
) -> None:
    error = UsageError("no", why="because", remedy="Do this.", fix=fix)
    what, why, remedy = describe.for_screen(error).split("\n")
    headless.tell(error)
    *_, last = capsys.readouterr().err.splitlines()
    assert (what, why) == ("no", "because")
    assert remedy.startswith("Do this.")
    assert (remedy == "Do this.") == (last.strip() == "Do this.") == (fix == "")
    assert "--" not in remedy
    assert describe.told(error) == "no because"


def test_no_remedy_of_a_run_speaks_of_flags() -> None:
    """What holds on the command line only is said by the front end for it."""
    root = Path(engine.__path__[0])
    found = []
    for path in (root / "runner.py", *root.glob("run/*.py"), *root.glob("backends/*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.keyword) and node.arg in ("what", "why", "remedy", "detail"):
                texts = (str(n.value) for n in ast.walk(node.value) if isinstance(n, ast.Constant))
                found += [text for text in texts if "--" in text.replace("pip install --upgrade", "")]
    assert not found
