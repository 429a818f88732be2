"""Presets: reading, refusing and overriding them."""

from pathlib import Path

import pytest
from preset_support import MINIMAL, refused, user, write

from engine import preset, preset_schema
from engine.plan import BUILTIN_DEMO, ExportPlan

__all__ = ["user"]


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
        (MINIMAL.encode("utf-16"), "not UTF-8 text: byte 0"),
        (f"version = {'1' * 5000}", "not valid TOML"),
        (f"a = {'[' * 100_000}", "nested too deeply"),
        (f"{MINIMAL}\n[context]\ncontext_window_size = 0x{'f' * 5000}", "a number of 20000 bits"),
    ],
)
def test_what_is_no_toml_is_told(tmp_path: Path, content: str | bytes, expected: str) -> None:
    name = write(tmp_path, content)
    message = str(refused(name))
    assert name in message
    assert expected in message


def test_the_mark_that_windows_editors_write_is_no_part_of_a_preset(tmp_path: Path) -> None:
    assert preset.load(write(tmp_path, MINIMAL.encode("utf-8-sig"))) == preset.load(write(tmp_path, MINIMAL))


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
