"""The backend mlc_llm: its command lines, word for word, and what it refuses before anything runs."""

import dataclasses
import platform
import sys
from pathlib import Path

import pytest
from official_stand_in import MODELS, QUANTIZATIONS, TEMPLATES
from published_models import GEMMA, SMOL

from engine.backends import auto
from engine.backends.base import Folders
from engine.backends.official.backend import OfficialBackend, device_of
from engine.backends.official.cli import Cli, Subcommand
from engine.backends.official.inspection import Inspection
from engine.backends.official.interpreter import Candidate
from engine.errors import ToolchainError, UsageError, WizardError
from engine.plan import ExportPlan

PYTHON = "/opt/mlc/bin/python"
STAGE = (sys.executable, "-P", "-m", "engine.backends.official.stage")
CONVERT = (
    "--device",
    "--lora-adapter",
    "--model-type",
    "--output",
    "--quantization",
    "--source",
    "--source-format",
)
GENERATE = (
    *(
        "--attention-sink-size",
        "--context-window-size",
        "--conv-template",
        "--max-batch-size",
        "--model-type",
    ),
    *(
        "--output",
        "--prefill-chunk-size",
        "--quantization",
        "--sliding-window-size",
        "--tensor-parallel-shards",
    ),
)
COMPILE = (
    *("--device", "--host", "--model-type", "--opt", "--output", "--overrides", "--quantization"),
    "--system-lib-prefix",
)
OLDEST_GENERATE = (
    *(
        "--context-window-size",
        "--conv-template",
        "--model",
        "--model-type",
        "--output",
        "--prefill-chunk-size",
    ),
    *("--quantization", "--sliding-window"),
)


def subcommand(name: str, flags: tuple[str, ...]) -> Subcommand:
    choices = {"--quantization": tuple(QUANTIZATIONS), "--model-type": ("auto", *MODELS)}
    if "--conv-template" in flags:
        choices["--conv-template"] = tuple(sorted(TEMPLATES))
    return Subcommand(name=name, flags=frozenset(flags), choices=choices)


def backend(*, legacy: bool = False, **changes: object) -> OfficialBackend:
    """Today's mlc_llm, or mlc_chat as it was on 2023-12-03."""
    if legacy:
        cli = Cli(
            module="mlc_chat",
            convert_weight=subcommand("convert_weight", (*CONVERT[:1], *CONVERT[2:], "--model")),
            gen_config=subcommand("gen_mlc_chat_config", OLDEST_GENERATE),
            compile=subcommand(
                "compile", tuple({*COMPILE, "--model", "--prefix-symbols"} - {"--system-lib-prefix"})
            ),
        )
    else:
        cli = Cli(
            module="mlc_llm",
            convert_weight=subcommand("convert_weight", CONVERT),
            gen_config=subcommand("gen_config", GENERATE),
            compile=subcommand("compile", COMPILE),
        )
    found = Inspection(
        candidate=Candidate(python=Path(PYTHON), origin="named"),
        module=cli.module,
        tvm="0.24.dev99",
        packages={"mlc-llm-nightly-cpu": "0.20.dev3", "mlc-ai-nightly-cpu": "0.24.dev99"},
        cli=cli,
    )
    return OfficialBackend(found=dataclasses.replace(found, **changes))  # type: ignore[arg-type]


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").touch()
    return Folders(source=tmp_path / "model", output=tmp_path / "out")


def plan(**changes: object) -> ExportPlan:
    usual = ExportPlan(
        source="/m",
        quantization="q4f16_1",
        context_window_size=4096,
        prefill_chunk_size=1024,
        backend="mlc_llm",
    )
    return dataclasses.replace(usual, **changes)  # type: ignore[arg-type]


def lines(made: OfficialBackend, wanted: ExportPlan, folders: Folders) -> dict[str, str]:
    """Each stage's command behind our own program, its places cut short."""
    short = {str(folders.building(s)): "HERE" for s in ("convert_weight", "gen_config", "compile")}
    short |= {str(folders.source): "MODEL", str(folders.output): "OUT", PYTHON: "PYTHON"}
    found = {}
    for command in made.commands(wanted, folders):
        assert command.argv[:4] == STAGE
        line = " ".join(command.argv[4:])
        for place, name in short.items():
            line = line.replace(place, name)
        found[command.stage] = line
    return found


class TestCommands:
    def test_the_three_stages_of_a_browser_export(self, folders):
        assert lines(backend(), plan(), folders) == {
            "convert_weight": (
                "convert_weight --into HERE --source MODEL --view HERE/source -- PYTHON -m mlc_llm "
                "convert_weight MODEL --quantization q4f16_1 --device cpu --source HERE/source "
                "--source-format huggingface-safetensor --output HERE"
            ),
            "gen_config": (
                "gen_config --into HERE --source MODEL --conversation auto -- PYTHON -m mlc_llm "
                "gen_config MODEL --quantization q4f16_1 --conv-template LM --context-window-size 4096 "
                "--prefill-chunk-size 1024 --max-batch-size 1 --output HERE"
            ),
            "compile": (
                "compile --into HERE --library model-webgpu.wasm -- PYTHON -m mlc_llm compile "
                "OUT/mlc-chat-config.json --quantization q4f16_1 --device webgpu --opt O2 "
                "--output HERE/model-webgpu.wasm"
            ),
        }

    def test_every_flag_that_a_plan_can_ask_for(self, folders):
        asked = plan(
            model_type="llama",
            conv_template="llama-3",
            context_window_size=-1,
            sliding_window_size=4096,
            attention_sink_size=4,
            tensor_parallel_shards=2,
            max_batch_size=8,
            device="android",
            host="aarch64-linux-android",
            opt="O3",
            system_lib_prefix="m_",
            overrides="prefill_chunk_size=128",
        )
        with_adapter = dataclasses.replace(folders, adapter=Path("/adapter"))
        found = lines(backend(), asked, with_adapter)
        assert found["convert_weight"].endswith(
            " convert_weight MODEL --quantization q4f16_1 --model-type llama --device cpu "
            "--source HERE/source --source-format huggingface-safetensor --lora-adapter /adapter "
            "--output HERE"
        )
        assert found["gen_config"] == (
            "gen_config --into HERE --source MODEL --rolling -- PYTHON -m mlc_llm gen_config MODEL "
            "--quantization q4f16_1 --model-type llama --conv-template llama-3 --context-window-size -1 "
            "--sliding-window-size 4096 --prefill-chunk-size 1024 --attention-sink-size 4 "
            "--tensor-parallel-shards 2 --max-batch-size 8 --output HERE"
        )
        assert found["compile"] == (
            "compile --into HERE --library model-android.tar -- PYTHON -m mlc_llm compile "
            "OUT/mlc-chat-config.json --quantization q4f16_1 --model-type llama --device android "
            "--host aarch64-linux-android --opt O3 --system-lib-prefix m_ --overrides prefill_chunk_size=128 "
            "--output HERE/model-android.tar"
        )

    def test_the_spellings_of_mlc_chat(self, folders):
        found = lines(backend(legacy=True), plan(sliding_window_size=-1, system_lib_prefix="p_"), folders)
        assert found["convert_weight"].endswith(
            "-m mlc_chat convert_weight --model MODEL --quantization q4f16_1 --device cpu "
            "--source HERE/source --source-format huggingface-safetensor --output HERE"
        )
        assert found["gen_config"].endswith(
            "-m mlc_chat gen_mlc_chat_config --model MODEL --quantization q4f16_1 --conv-template LM "
            "--context-window-size 4096 --sliding-window -1 --prefill-chunk-size 1024 --output HERE"
        )
        assert found["compile"].endswith(
            "-m mlc_chat compile --model OUT/mlc-chat-config.json --quantization q4f16_1 --device webgpu "
            "--opt O2 --prefix-symbols p_ --output HERE/model-webgpu.wasm"
        )

    def test_pytorch_weights_need_no_view(self, folders):
        (folders.source / "model.safetensors").rename(folders.source / "pytorch_model.bin")
        line = lines(backend(), plan(), folders)["convert_weight"]
        assert "--view" not in line
        assert line.endswith(" --source MODEL --source-format huggingface-torch --output HERE")

    def test_an_awq_checkpoint_is_named_by_its_index(self, folders):
        line = lines(backend(), plan(quantization="q4f16_autoawq"), folders)["convert_weight"]
        index = "HERE/source/model.safetensors.index.json"
        assert line.endswith(f" --source {index} --source-format awq --output HERE")

    def test_a_checkout_goes_with_every_stage(self, folders):
        checkout = Candidate(python=Path(PYTHON), origin="checkout", checkout=Path("/mlc-llm/python"))
        for line in lines(backend(candidate=checkout), plan(), folders).values():
            assert " --checkout /mlc-llm/python -- " in line

    def test_without_a_library_there_are_two_stages(self, folders):
        assert list(lines(backend(), plan(compile=False), folders)) == ["convert_weight", "gen_config"]

    def test_another_version_of_mlc_llm_is_another_result(self, folders):
        (command, *_) = backend().commands(plan(), folders)
        assert command.versions == {
            "mlc_llm": "0.20.dev3",
            "tvm": "0.24.dev99",
            "mlc-llm-nightly-cpu": "0.20.dev3",
            "mlc-ai-nightly-cpu": "0.24.dev99",
        }

    @pytest.mark.parametrize(
        ("device", "machine", "said"),
        [
            ("vulkan", "x86_64", "vulkan:generic"),
            ("metal", "arm64", "metal:generic"),
            ("metal", "x86_64", "metal:x86-64"),
            ("cuda", "x86_64", "cuda"),
            ("iphone", "arm64", "iphone"),
        ],
    )
    def test_devices_in_its_words(self, device, machine, said, monkeypatch):
        monkeypatch.setattr(platform, "machine", lambda: machine)
        assert device_of(device) == said


class TestChecks:
    def test_a_plan_that_it_can_do(self):
        backend().check(plan(), GEMMA)
        backend().check(plan(device="vulkan"), None)

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"quantization": "q4bf16_1", "device": "cuda"}, ["quantization 'q4bf16_1'", "embedded backend"]),
            ({"model_type": "phi3"}, ["model type 'phi3'", "embedded backend"]),
            ({"conv_template": "lama-3"}, ["conversation template 'lama-3'", "llama-3"]),
            ({"device": "webgpu", "quantization": "q0bf16"}, ["cannot run on webgpu"]),
        ],
    )
    def test_a_value_that_it_does_not_know(self, changes, words):
        with pytest.raises(UsageError) as caught:
            backend().check(plan(**changes), None)
        for word in words:
            assert word in str(caught.value)

    def test_the_model_type_of_config_json_counts(self):
        with pytest.raises(UsageError, match="does not know the model type 'rwkv5'"):
            backend().check(plan(), dataclasses.replace(SMOL, model_type="rwkv5", spec=None))

    def test_a_flag_that_an_old_version_lacks_is_named(self):
        with pytest.raises(UsageError) as caught:
            backend(legacy=True).check(plan(lora_adapter="/adapter"), None)
        assert "its convert_weight has no --lora-adapter" in caught.value.what
        assert "Install a current mlc_llm" in caught.value.remedy
        with pytest.raises(UsageError, match="its gen_mlc_chat_config has no --attention-sink-size"):
            backend(legacy=True).check(plan(attention_sink_size=4), None)
        backend(legacy=True).check(plan(), None)


class TestChoosing:
    """Which backend `auto` takes, on a machine that has no mlc_llm, or an environment as if it had."""

    @pytest.fixture(autouse=True)
    def bare(self, tmp_path, monkeypatch):
        for variable in ("VIRTUAL_ENV", "CONDA_PREFIX", "MLC_LLM_SOURCE_DIR"):
            monkeypatch.delenv(variable, raising=False)
        monkeypatch.setenv("MLC_WIZARD_MLC_LLM", str(tmp_path / "own"))
        monkeypatch.setenv("PATH", str(tmp_path))

    def test_embedded_where_it_covers_all(self):
        found, why = auto.choose(plan(backend="auto"), GEMMA)
        assert found.name == "embedded"
        assert why.startswith("embedded backend: it covers this model, q4f16_1, webgpu")
        assert "nothing else" in why

    @pytest.mark.skipif(sys.platform == "darwin", reason="NVIDIA has no compiler for macOS")
    def test_for_cuda_the_compiler_that_it_needs_is_named(self):
        found, why = auto.choose(plan(backend="auto", device="cuda"), GEMMA)
        assert (found.name, "NVRTC" in why, "nothing else" in why) == ("embedded", True, False)

    def test_mlc_llm_for_what_embedded_lacks(self, tmp_path):
        from official_support import mlc_llm

        mlc_llm(tmp_path / "own")
        found, why = auto.choose(plan(backend="auto", device="vulkan"), None)
        assert found.name == "mlc_llm"
        assert "vulkan" in why
        assert "mlc_llm 0.20.dev321 with tvm 0.24.dev99" in why

    def test_a_screen_does_not_wait_for_the_look(self, tmp_path):
        from official_support import mlc_llm

        mlc_llm(tmp_path / "own", on_import="raise RuntimeError('looked')")
        found, why = auto.choose(plan(backend="auto", device="vulkan"), None, wait=False)
        assert found.name == "mlc_llm"
        assert "looked into before a run" in why
        with pytest.raises(WizardError, match="vulkan"):
            auto.choose(plan(backend="auto", device="vulkan"), None)
        with pytest.raises(WizardError, match="vulkan"):  # what was found out holds
            auto.choose(plan(backend="auto", device="vulkan"), None, wait=False)

    def test_nobody_covers_it_and_what_would_is_named(self):
        with pytest.raises(UsageError) as caught:
            auto.choose(plan(backend="auto", device="vulkan"), None)
        assert "vulkan" in caught.value.what
        assert "mlc_llm, the official compiler, may cover it: No mlc_llm was found here." in caught.value.why
        assert "engine.interpreter=PATH" in caught.value.remedy

    def test_what_no_backend_can_do_is_said_without_detours(self, tmp_path):
        from official_support import mlc_llm

        mlc_llm(tmp_path / "own")
        with pytest.raises(UsageError) as caught:
            auto.choose(plan(backend="auto", quantization="q0bf16"), None)
        assert "cannot run on webgpu" in caught.value.what
        assert "mlc_llm" not in str(caught.value)

    def test_named_and_not_there(self):
        with pytest.raises(ToolchainError, match=r"No mlc_llm was found here\."):
            auto.choose(plan(), None)

    def test_named_with_an_interpreter_that_is_broken(self, tmp_path):
        with pytest.raises(ToolchainError) as caught:
            auto.choose(plan(interpreter=str(tmp_path / "gone" / "python")), None)
        assert f"{tmp_path / 'gone' / 'python'} is no Python that runs." == caught.value.what
        assert "No such file" in caught.value.why or "cannot find" in caught.value.why
