"""Presets: reading, refusing, overriding, listing and saving them."""

import dataclasses
import os
import string
import sys
from pathlib import Path
from typing import get_args

import pytest
from conftest import GOLDEN
from hypothesis import given
from hypothesis import strategies as st
from native_libraries import program

from engine import headless, preset, preset_schema
from engine.catalog import QUANTIZATIONS, TARGETS
from engine.errors import UsageError
from engine.plan import BUILTIN_DEMO, BackendName, ExportPlan

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


def test_minimal_preset_takes_the_plan_defaults(tmp_path: Path) -> None:
    plan = preset.load(write(tmp_path, MINIMAL))
    assert plan == ExportPlan(source=BUILTIN_DEMO, quantization="q4f32_1")


def test_every_key_reaches_its_field(tmp_path: Path) -> None:
    text = """
version = 1
description = "all of it"
[model]
source = "org/name"
revision = "abc123"
lora_adapter = "org/adapter@v2"
model_type = "gemma3_text"
conv_template = "none"
[quantization]
mode = "q0f32"
[context]
context_window_size = 2048
prefill_chunk_size = 2048
sliding_window_size = -1
attention_sink_size = 0
max_batch_size = 4
tensor_parallel_shards = 2
[target]
device = "cpu"
compile = false
host = "x86_64-linux-gnu"
opt = "O3"
system_lib_prefix = "abc_"
overrides = "prefill_chunk_size=128;max_batch_size=2"
[output]
directory = "a/b"
[engine]
backend = "mlc_llm"
interpreter = "environments/mlc"
"""
    assert preset.load(write(tmp_path, text)) == ExportPlan(
        source="org/name",
        revision="abc123",
        lora_adapter="org/adapter@v2",
        model_type="gemma3_text",
        conv_template="none",
        quantization="q0f32",
        context_window_size=2048,
        prefill_chunk_size=2048,
        sliding_window_size=-1,
        attention_sink_size=0,
        max_batch_size=4,
        tensor_parallel_shards=2,
        device="cpu",
        compile=False,
        host="x86_64-linux-gnu",
        opt="O3",
        system_lib_prefix="abc_",
        overrides="prefill_chunk_size=128;max_batch_size=2",
        output=Path("a/b"),
        backend="mlc_llm",
        interpreter=str(tmp_path / "environments" / "mlc"),
        description="all of it",
    )


def test_a_name_that_documents_use_is_read_as_the_real_one(tmp_path: Path) -> None:
    text = write(tmp_path, 'version = 1\n[model]\nsource = "org/name"\n[quantization]\nmode = "q4f16_awq"\n')
    assert preset.load(text).quantization == "q4f16_autoawq"
    plan = preset.load(text, ["quantization.mode=q4f16_awq"])
    assert plan.quantization == "q4f16_autoawq"


def test_every_field_of_the_plan_has_exactly_one_key() -> None:
    names = [key.field for key in preset_schema.KEYS]
    assert sorted(names) == sorted(ExportPlan.__dataclass_fields__)


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (("version = 1\n", ""), ["version is missing"]),
        (("version = 1", "version = 2"), ["version = 2", "newer", "reads version 1"]),
        (("version = 1", "version = true"), ["version = true", "Allowed: 1"]),
        (("version = 1", 'version = "1"'), ['version = "1"', "Allowed: 1"]),
        (("source =", "sorce ="), ["unknown key model.sorce", "Did you mean source?"]),
        (('source = "builtin:demo"', ""), ["model.source is missing", "--set model.source="]),
        (('mode = "q4f32_1"', ""), ["quantization.mode is missing", "q4f32_1"]),
        (("q4f32_1", "q4f32"), ['quantization.mode = "q4f32"', "Allowed: q0f16,", "mean q4f32_1?"]),
        (('"q4f32_1"', "4"), ["quantization.mode = 4 is not text"]),
        (("[quantization]", "[quantisation]"), ["section [quantisation]", "mean quantization?"]),
        (("[model]", "model = 3\n[other]"), ["model = 3, but model is a section"]),
        (("[model]", 'device = "cpu"\n[model]'), ["unknown key device", "It is written target.device"]),
        (("[model]", '[model]\ndevice = "cpu"'), ["model.device", "target.device"]),
        (('"builtin:demo"', '"a b"'), ["'a b'", "neither a folder", "builtin:demo"]),
        (('"builtin:demo"', '["a"]'), ["model.source = an array is not text"]),
        (('"builtin:demo"', '"builtin:dem"'), ["'builtin:dem'", "builtin:demo"]),
    ],
)
def test_refusals_name_file_key_found_and_allowed(
    tmp_path: Path, edit: tuple[str, str], expected: list[str]
) -> None:
    assert edit[0] in MINIMAL
    name = write(tmp_path, MINIMAL.replace(*edit, 1))
    message = str(refused(name))
    for part in (name, *expected):
        assert part in message


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("context.prefill_chunk_size=0", ["prefill_chunk_size = 0", "from 1 up"]),
        ("context.prefill_chunk_size=-1", ["prefill_chunk_size = -1", "from 1 up"]),
        ("context.prefill_chunk_size=true", ["= true is not a whole number"]),
        ("context.prefill_chunk_size=12.5", ["= 12.5 is not a whole number"]),
        ("context.prefill_chunk_size=many", ['= "many" is not a whole number']),
        ("context.context_window_size=0", ["context_window_size = 0", "from 1 up"]),
        ("context.context_window_size=99999999999", ["= 99999999999 is not allowed"]),
        ("context.attention_sink_size=-1", ["attention_sink_size = -1", "from 0 up"]),
        ("target.compile=1", ["target.compile = 1 is not true or false"]),
        ("target.compile=yes", ['target.compile = "yes" is not true or false']),
        ("target.device=webgl", ['"webgl"', "webgpu", "Did you mean webgpu?"]),
        ("target.opt=O7", ['"O7"', "O0, O1, O2, O3"]),
        ("target.overrides=a:b", ['"a:b"', "name=value"]),
        ("engine.backend=dokcer", ['"dokcer"', "Did you mean docker?"]),
        ("engine.backed=docker", ["engine.backed", "Did you mean backend?"]),
        ("output.directory=", ["output.directory", "a folder"]),
        ("model.conv_template=", ["model.conv_template", '"auto"']),
        ("model.lora_adapter=a b", ["model.lora_adapter = 'a b'", "owner/name"]),
        ("model.lora_adapter=builtin:demo", ["model.lora_adapter = 'builtin:demo'"]),
        ("cntext.prefill_chunk_size=1", ["section [cntext]", "Did you mean context?"]),
        ("version=2", ["unknown key version"]),
        ("context.prefill_chunk_size", ["section.key=value"]),
        ("=3", ["section.key=value"]),
    ],
)
def test_overrides_are_checked_as_the_file_is(tmp_path: Path, setting: str, expected: list[str]) -> None:
    message = str(refused(write(tmp_path, MINIMAL), setting))
    assert message.startswith("--set: ")
    for part in expected:
        assert part in message


@pytest.mark.parametrize(
    ("setting", "field", "value"),
    [
        ("quantization.mode=q0f16", "quantization", "q0f16"),
        ('quantization.mode="q0f16"', "quantization", "q0f16"),
        ("context.context_window_size = 0x100", "context_window_size", 256),
        ("context.context_window_size=1_000", "context_window_size", 1000),
        ("target.compile=false", "compile", False),
        ("model.revision=1234567", "revision", "1234567"),
        ("model.revision=", "revision", ""),
        ("target.overrides=context_window_size=8", "overrides", "context_window_size=8"),
        ("description=true", "description", "true"),
        ("output.directory=a b/c", "output", Path("a b/c")),
    ],
)
def test_overrides_win(tmp_path: Path, setting: str, field: str, value: object) -> None:
    assert getattr(preset.load(write(tmp_path, MINIMAL), [setting]), field) == value


def test_an_override_cannot_smuggle_a_second_key(tmp_path: Path) -> None:
    plan = preset.load(write(tmp_path, MINIMAL), ['description="a"\nother = 2'])
    assert plan.description == '"a"\nother = 2'


def test_the_last_override_wins_and_can_supply_what_the_file_lacks(tmp_path: Path) -> None:
    name = write(tmp_path, "version = 1\n")
    sets = ["model.source=builtin:demo", "quantization.mode=q0f16", "quantization.mode=q0f32"]
    assert preset.load(name, sets).quantization == "q0f32"


def test_prefill_above_context_names_both(tmp_path: Path) -> None:
    error = refused(
        write(tmp_path, MINIMAL + "[context]\ncontext_window_size = 512\n"), "context.prefill_chunk_size=1024"
    )
    assert error.what.startswith("--set: context.prefill_chunk_size = 1024 is above")
    assert "context_window_size = 512" in error.what
    assert "1 to 512" in error.remedy


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("version = \n", "not valid TOML"),
        ("version = 1\nversion = 1\n", "not valid TOML"),
        (b"version = 1\n# caf\xe9\n", "not UTF-8 text: byte 17 is 0xe9"),
    ],
)
def test_what_is_no_toml_is_told(tmp_path: Path, content: str | bytes, expected: str) -> None:
    name = write(tmp_path, content)
    message = str(refused(name))
    assert name in message
    assert expected in message


def test_relative_source_is_beside_the_preset_and_output_is_here(tmp_path: Path, user: Path) -> None:
    (tmp_path / "models" / "tiny").mkdir(parents=True)
    text = MINIMAL.replace("builtin:demo", "models/tiny") + '[output]\ndirectory = "out"\n'
    plan = preset.load(write(tmp_path, text))
    assert plan.source == str((tmp_path / "models" / "tiny").resolve())
    assert plan.output == Path("out")
    (tmp_path / "models" / "a@b").mkdir()
    for adapter in ("models/tiny", "models/a@b", "./models/not-yet"):
        plan = preset.load(write(tmp_path, text.replace("[model]", f'[model]\nlora_adapter = "{adapter}"')))
        assert plan.lora_adapter == str((tmp_path / adapter).resolve())
    override = preset.load(write(tmp_path, text), ["model.source=./x"])
    assert override.source == str((Path.cwd() / "x").resolve())


def test_a_missing_relative_folder_stays_a_folder(tmp_path: Path) -> None:
    for text in ("./nowhere", "../nowhere", "a/b/c"):
        plan = preset.load(write(tmp_path, MINIMAL.replace("builtin:demo", text)))
        assert Path(plan.source) == (tmp_path / text).resolve()


def test_names_are_looked_up_here_then_by_the_user_then_shipped(user: Path) -> None:
    assert preset.find("demo") == preset.find("demo.toml") == preset.shipped_folder() / "demo.toml"
    mine = Path(write(user, MINIMAL, "demo.toml"))
    assert preset.find("demo") == preset.find("demo.toml") == mine
    Path("demo").mkdir()  # a folder of that name is no preset
    assert preset.find("demo") == mine
    write(Path.cwd(), MINIMAL, "demo.toml")
    assert preset.find("demo") == preset.find("demo.toml") == Path("demo.toml")


def test_an_unknown_name_lists_and_suggests(user: Path) -> None:
    error = refused("gema270m")
    assert "gemma270m" in error.why
    assert error.remedy == "Did you mean gemma270m?"
    Path("folder").mkdir()
    assert "is a folder" in str(refused("folder"))


def test_listing_shows_broken_presets_with_their_reason(user: Path) -> None:
    write(user, MINIMAL.replace("version = 1", 'version = 1\ndescription = "mine"'), "mine.toml")
    write(user, "version = 9", "broken.toml")
    write(user, MINIMAL, "demo.toml")
    entries = {e.name: e for e in preset.list_presets()}
    assert (entries["mine"].origin, entries["mine"].description) == ("user", "mine")
    assert "version = 9" in entries["broken"].error
    assert entries["demo"].path == user / "demo.toml"
    assert (entries["gemma270m"].origin, entries["gemma270m"].error) == ("shipped", "")
    assert entries["gemma270m"].description


def test_shipped_presets_are_what_they_promise(user: Path) -> None:
    gemma = preset.load("gemma270m")
    assert (gemma.source, gemma.quantization) == ("google/functiongemma-270m-it", "q0f16")
    assert (gemma.context_window_size, gemma.prefill_chunk_size) == (4096, 512)
    assert (gemma.device, gemma.output) == ("webgpu", Path("working/mlc-model"))
    demo = preset.load("demo")
    assert (demo.source, demo.quantization, demo.device) == (BUILTIN_DEMO, "q4f32_1", "webgpu")


SHIPPED = {
    "demo": ("webgpu", "--context-window-size 1024 --prefill-chunk-size 256"),
    "gemma270m": ("webgpu", "--context-window-size 4096 --prefill-chunk-size 512"),
    "redpajama-3b-cuda": ("cuda", "--conv-template redpajama_chat -o"),
    "redpajama-3b-webgpu": ("webgpu", "--conv-template redpajama_chat -o"),
    "redpajama-3b-android": ("android", "--context-window-size 768 -o"),
    "llama2-7b-webgpu": ("webgpu", "--context-window-size 2048 -o"),
    "llama2-7b-metal": ("metal", "--conv-template auto -o"),
    "mistral-7b-webgpu": ("webgpu", "--sliding-window-size 4096 --prefill-chunk-size 1024 -o"),
    "mistral-7b-iphone": ("iphone", "--sliding-window-size 1024 --prefill-chunk-size 128 -o"),
}


def test_every_shipped_preset_is_told_in_one_plain_line(user: Path) -> None:
    entries = {entry.name: entry for entry in preset.list_presets()}
    assert entries.keys() == SHIPPED.keys()
    for entry in entries.values():
        assert not entry.error
        assert 20 <= len(entry.description) <= 100
        assert "\n" not in entry.description


@pytest.mark.parametrize("name", SHIPPED)
def test_a_dry_run_of_a_shipped_preset_shows_its_commands(
    name: str,
    user: Path,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    device, flags = SHIPPED[name]
    plan = preset.load(name)
    assert plan.device == device
    program(tmp_path, "nvcc", "")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert headless.dry_run(plan) == 0
    [line] = [line for line in capsys.readouterr().out.splitlines() if "gen_config" in line and flags in line]
    assert f"--quantization {plan.quantization}" in line


def test_a_rolling_cache_is_for_models_whose_cache_rolls(
    user: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = dataclasses.replace(preset.load("mistral-7b-iphone"), device="webgpu")
    mistral = dataclasses.replace(plan, source=str(GOLDEN / "mistral" / "hf"))
    assert headless.dry_run(mistral) == 0
    assert "--sliding-window-size 1024" in capsys.readouterr().out
    gemma = dataclasses.replace(plan, source=str(GOLDEN / "gemma3_text" / "hf"))
    with pytest.raises(UsageError, match="1024: the cache of a gemma3_text model does not roll") as caught:
        headless.dry_run(gemma)
    assert "Leave sliding_window_size out" in (caught.value.remedy or "")


TEXT = st.text(st.characters(exclude_categories=["Cs"]))
WORD = st.text(string.ascii_letters + string.digits + "_.-", min_size=1)
SIZES = st.none() | st.integers(1, 2**31 - 1)


@st.composite
def plans(draw: st.DrawFn) -> ExportPlan:
    context, prefill = draw(SIZES | st.just(-1)), draw(SIZES)
    if context is not None and prefill is not None and 0 < context < prefill:
        context, prefill = prefill, context
    root = Path.cwd().anchor
    folder = st.text(
        st.characters(exclude_categories=["C", "Z"], exclude_characters='<>:"/\\|?*~.'), min_size=1
    )
    return ExportPlan(
        source=draw(
            st.just(BUILTIN_DEMO) | st.just("org/name-1.5b") | folder.map(lambda f: str(Path(root, f)))
        ),
        revision=draw(WORD | st.just("")),
        lora_adapter=draw(
            st.sampled_from(["", "org/lora", "org/lora@v1"]) | folder.map(lambda f: str(Path(root, f)))
        ),
        model_type=draw(WORD),
        conv_template=draw(WORD),
        quantization=draw(st.sampled_from(list(QUANTIZATIONS))),
        context_window_size=context,
        prefill_chunk_size=prefill,
        sliding_window_size=draw(SIZES | st.just(-1)),
        attention_sink_size=draw(st.none() | st.integers(0, 64)),
        max_batch_size=draw(st.integers(1, 512)),
        tensor_parallel_shards=draw(st.integers(1, 8)),
        device=draw(st.sampled_from(list(TARGETS))),
        compile=draw(st.booleans()),
        host=draw(WORD),
        opt=draw(st.sampled_from(["O0", "O3", "flash_attention=1;faster=0"])),
        system_lib_prefix=draw(st.sampled_from(["auto", "", "gemma_"])),
        overrides=draw(st.sampled_from(["", "a=1", "a=1;b=-2"])),
        cuda_arch=draw(st.sampled_from(["auto", "sm_89", "75,compute_90a"])),
        output=Path(draw(folder), draw(folder)),
        backend=draw(st.sampled_from(get_args(BackendName))),
        interpreter=draw(st.sampled_from(["auto", str(Path("mlc/bin/python").absolute())])),
        description=draw(TEXT),
    )


@given(plans())
def test_saving_keeps_every_choice(tmp_path_factory: pytest.TempPathFactory, plan: ExportPlan) -> None:
    path = tmp_path_factory.mktemp("save") / "made" / "p.toml"
    preset.save(plan, path)
    assert preset.load(str(path)) == plan
    assert [p.name for p in path.parent.iterdir()] == ["p.toml"]


def test_a_failed_save_leaves_the_old_preset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "p.toml"
    preset.save(ExportPlan(source=BUILTIN_DEMO, quantization="q0f16"), path)
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UsageError, match="No space left"):
        preset.save(ExportPlan(source=BUILTIN_DEMO, quantization="q0f32"), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no mode bits to compare")
def test_a_saved_preset_has_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    preset.save(ExportPlan(source=BUILTIN_DEMO, quantization="q0f16"), tmp_path / "p.toml")
    (tmp_path / "plain").write_text("x")
    assert (tmp_path / "p.toml").stat().st_mode == (tmp_path / "plain").stat().st_mode
