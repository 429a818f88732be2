"""gen_config against mlc_llm's own output, and everything it refuses or warns of."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from chat_templates import GOLDEN as MODELS
from gen_config_differences import DIFFERENCES

from engine.embedded.__main__ import main
from engine.embedded.compile import read_config
from engine.embedded.families.registry import FAMILIES, family_of
from engine.embedded.gen_config import (
    CONFIG_NAME,
    Generated,
    generate,
)
from engine.embedded.library import plan_of
from engine.embedded.sizes import DEFAULT_CONTEXT, DEFAULT_PREFILL, Sizes
from engine.embedded.spec import RollingCache
from engine.errors import StageError, UsageError
from engine.model.config import normalise

GOLDEN = Path(__file__).parent / "data" / "golden"
ASKED = Sizes(context_window_size=256, prefill_chunk_size=64)


def differences(ours: Any, theirs: Any, path: str = "") -> set[str]:
    """The paths at which two JSON values differ; lists are values."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return {
            found
            for key in {*ours, *theirs}
            for found in differences(ours.get(key, ...), theirs.get(key, ...), f"{path}.{key}".lstrip("."))
        }
    if isinstance(ours, dict) or isinstance(theirs, dict):
        inner, other = (ours, theirs) if isinstance(ours, dict) else (theirs, ours)
        return {found for key in inner for found in differences(inner[key], other, f"{path}.{key}")}
    return set() if ours == theirs else {path}


def made(name: str, target: Path, sizes: Sizes = ASKED, **options: str) -> Generated:
    options.setdefault("quantization", "q4f16_1")
    return generate(MODELS[name], target, sizes=sizes, **options)


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", DIFFERENCES)
def test_the_config_is_mlc_llms_but_for_what_is_listed(name: str, tmp_path: Path) -> None:
    ours = read(made(name, tmp_path).path)
    theirs = read(GOLDEN / name / "expected" / CONFIG_NAME)
    assert differences(ours, theirs) == set(DIFFERENCES[name])
    # The order of keys too, as far as both have them.
    assert [key for key in ours if key in theirs] == list(theirs)


@pytest.mark.parametrize("name", DIFFERENCES)
def test_webllm_accepts_the_config(name: str, tmp_path: Path) -> None:
    config = read(made(name, tmp_path, sizes=Sizes()).path)
    windows = [config["context_window_size"], config["sliding_window_size"]]
    assert sum(size != -1 for size in windows) == 1
    assert "tokenizer.json" in config["tokenizer_files"]
    for key in ("temperature", "top_p", "repetition_penalty", "frequency_penalty", "presence_penalty"):
        assert isinstance(config[key], float)
    template = config["conv_template"]
    assert len(template["seps"]) in (1, 2)
    assert template["stop_token_ids"]
    assert isinstance(template["stop_str"], list)
    assert {"user", "assistant"} <= set(template["roles"])
    assert 0 < config["prefill_chunk_size"] <= config["context_window_size"]


@pytest.mark.parametrize("name", DIFFERENCES)
@pytest.mark.parametrize("form", ["transformers 4", "transformers 5"])
def test_compile_needs_nothing_but_the_config(name: str, form: str, tmp_path: Path) -> None:
    source = tmp_path / "hf"
    shutil.copytree(
        MODELS[name], source, ignore=shutil.ignore_patterns("*.safetensors"), copy_function=shutil.copyfile
    )
    if form == "transformers 5":
        shutil.copyfile(GOLDEN / name / "config.transformers5.json", source / "config.json")
    written = read(generate(source, tmp_path / "out", quantization="q4f16_1", sizes=ASKED).path)
    original = normalise(read(MODELS[name] / "config.json"))
    family = family_of(original)
    assert FAMILIES[written["model_type"]].spec(written["model_config"]) == family.spec(
        family.model_config(original)
    )
    assert written["model_config"]["context_window_size"] == 256
    assert written["model_config"]["prefill_chunk_size"] == 64


def test_the_windows_of_gemma_3_reach_compile(tmp_path: Path) -> None:
    written = read(made("gemma3_text", tmp_path).path)
    spec = FAMILIES["gemma3_text"].spec(written["model_config"])
    assert [layer.window for layer in spec.layers] == [16, 16, 16, 16, 16, None, 16]


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["gen_config", str(MODELS["gemma3_text"] / "config.json"), "--quantization", "q4f16_1"]
    arguments += ["--conv-template", "auto", "--model-type", "auto", "--context-window-size", "256"]
    arguments += ["--sliding-window-size", "-1", "--prefill-chunk-size", "64", "--attention-sink-size", "-1"]
    arguments += ["--tensor-parallel-shards", "1", "--pipeline-parallel-stages", "1"]
    arguments += ["--disaggregation", "false", "--max-batch-size", "1", "-o", str(tmp_path / "a" / "b")]
    assert main(arguments) == 0
    assert read(tmp_path / "a" / "b" / CONFIG_NAME) == made("gemma3_text", tmp_path / "c").config
    printed = capsys.readouterr()
    assert "the model's own prompt in 5 of 5 cases" in printed.err
    assert "note: second turn on the kept KV cache" in printed.err
    assert json.loads(printed.out) == {
        "conv_template": "custom",
        "trimmed_roles": "user, assistant",
        "one turn": "exact",
        "two turns": "exact",
        "three turns": "exact",
        "system message, one turn": "exact",
        "system message, two turns": "exact",
        "second turn on the kept KV cache": "WebLLM does not send '<end_of_turn>\\n' after a reply",
    }


def test_the_command_line_tells_what_differs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gen_config", str(MODELS["llama"]), "--quantization", "q0f32", "-o", str(tmp_path)]) == 0
    narrated = capsys.readouterr().err
    assert "the model's own prompt in 3 of 5 cases" in narrated
    assert "warning: system message, one turn: WebLLM tokenizes each turn alone" in narrated


def test_files_are_written_whole_and_nothing_is_left(tmp_path: Path) -> None:
    output = tmp_path / "out"
    generated = made("llama", output)
    assert {path.name for path in output.iterdir()} == set(generated.files)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (output / name).read_bytes() == (MODELS["llama"] / name).read_bytes()
    before = (output / CONFIG_NAME).read_bytes()
    assert made("llama", output).path.read_bytes() == before
    assert before.decode("utf-8").endswith("}\n")


def test_all_tokenizer_files_are_copied_in_mlc_llms_order(tmp_path: Path) -> None:
    source = tmp_path / "hf"
    shutil.copytree(MODELS["qwen2"], source, ignore=shutil.ignore_patterns("config.json"))
    shutil.copyfile(MODELS["llama"] / "config.json", source / "config.json")
    for name in ("vocab.json", "merges.txt", "added_tokens.json", "special_tokens_map.json"):
        (source / name).write_text("{}", encoding="utf-8")
    generated = generate(source, tmp_path / "out", quantization="q0f16")
    names = ["tokenizer.json", "vocab.json", "merges.txt", "added_tokens.json", "tokenizer_config.json"]
    assert generated.config["tokenizer_files"] == names


@pytest.mark.parametrize(
    ("maximum", "asked", "expected"),
    [
        (512, Sizes(), (512, 512)),
        (131072, Sizes(), (DEFAULT_CONTEXT, DEFAULT_PREFILL)),
        (131072, Sizes(context_window_size=8192), (8192, DEFAULT_PREFILL)),
        (131072, Sizes(context_window_size=300), (300, 300)),
        (131072, Sizes(prefill_chunk_size=2048), (DEFAULT_CONTEXT, 2048)),
        (512, Sizes(context_window_size=512, prefill_chunk_size=512), (512, 512)),
    ],
)
def test_sizes(maximum: int, asked: Sizes, expected: tuple[int, int], tmp_path: Path) -> None:
    source = edited(tmp_path, "llama", max_position_embeddings=maximum)
    config = generate(source, tmp_path / "out", quantization="q0f16", sizes=asked).config
    assert (config["context_window_size"], config["prefill_chunk_size"]) == expected
    model = config["model_config"]
    assert (model["context_window_size"], model["prefill_chunk_size"]) == expected


def edited(tmp_path: Path, name: str, /, *, file: str = "config.json", **changes: Any) -> Path:
    """A copy of a model folder with fields of one of its files changed; None takes a field out."""
    source = tmp_path / "hf"
    if not source.is_dir():
        ignored = shutil.ignore_patterns("*.safetensors")
        shutil.copytree(MODELS[name], source, ignore=ignored, copy_function=shutil.copyfile)
    stated = {key: value for key, value in (read(source / file) | changes).items() if value is not None}
    (source / file).write_text(json.dumps(stated), encoding="utf-8")
    return source


def test_a_context_above_the_models_own_is_allowed_and_told(tmp_path: Path) -> None:
    generated = made("llama", tmp_path, sizes=Sizes(context_window_size=1024))
    assert generated.config["context_window_size"] == 1024
    assert any("above the 512 tokens" in warning for warning in generated.warnings)


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        (Sizes(prefill_chunk_size=0), "--prefill-chunk-size is 0"),
        (Sizes(context_window_size=0), "--context-window-size is 0"),
        (Sizes(context_window_size=-1), "--context-window-size is -1"),
        (Sizes(context_window_size=256, prefill_chunk_size=257), "257 is above --context-window-size 256"),
        (Sizes(max_batch_size=0), "--max-batch-size is 0"),
        (Sizes(tensor_parallel_shards=2), "--tensor-parallel-shards 2"),
        (Sizes(pipeline_parallel_stages=2), "--pipeline-parallel-stages 2"),
        (Sizes(disaggregation=True), "--disaggregation True"),
        (Sizes(sliding_window_size=128), "--sliding-window-size 128"),
        (Sizes(attention_sink_size=4), "--attention-sink-size 4"),
    ],
)
def test_sizes_that_cannot_be(sizes: Sizes, words: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        made("llama", tmp_path / "out", sizes=sizes)
    assert words in caught.value.what
    assert caught.value.remedy
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("sizes", "window", "sink", "prefill"),
    [
        (Sizes(sliding_window_size=128), 128, 4, 128),
        (Sizes(sliding_window_size=128, attention_sink_size=0, prefill_chunk_size=32), 128, 0, 32),
        (Sizes(sliding_window_size=2048, context_window_size=-1), 2048, 4, 1024),
    ],
)
def test_a_rolling_window_takes_the_place_of_the_context(
    sizes: Sizes, window: int, sink: int, prefill: int, tmp_path: Path
) -> None:
    config = made("mistral", tmp_path / "out", sizes=sizes).config
    for place in (config, config["model_config"]):
        assert (place["context_window_size"], place["sliding_window_size"]) == (-1, window)
        assert (place["attention_sink_size"], place["prefill_chunk_size"]) == (sink, prefill)
    # Which is what a library is compiled for; overrides cannot make two windows of it.
    rolls = RollingCache(window=window, sinks=sink)
    assert plan_of(read_config(tmp_path / "out", {})).spec.rolling == rolls
    with pytest.raises(UsageError, match=f"context_window_size = 256, sliding_window_size = {window}"):
        plan_of(read_config(tmp_path / "out", {"context_window_size": 256}))
    with pytest.raises(UsageError, match=f"attention_sink_size = {window} does not fit"):
        plan_of(read_config(tmp_path / "out", {"attention_sink_size": window}))


def test_a_cache_larger_than_the_model_was_made_for_is_told(tmp_path: Path) -> None:
    generated = made("mistral", tmp_path / "out", sizes=Sizes(sliding_window_size=2048))
    assert any("2048 tokens is above the 512 tokens" in warning for warning in generated.warnings)


def test_a_library_is_compiled_for_a_window_given_late(tmp_path: Path) -> None:
    made("mistral", tmp_path / "out", sizes=Sizes())
    late = {"context_window_size": -1, "sliding_window_size": 64, "attention_sink_size": 2}
    spec = plan_of(read_config(tmp_path / "out", late)).spec
    assert spec.rolling == RollingCache(window=64, sinks=2)
    assert all(layer.window is None for layer in spec.layers)
    made("llama", tmp_path / "llama", sizes=Sizes())
    with pytest.raises(UsageError, match="64: the cache of a llama model does not roll"):
        plan_of(read_config(tmp_path / "llama", late))


def test_rope_scaling_and_a_rolling_cache_exclude_each_other(tmp_path: Path) -> None:
    config = made("mistral", tmp_path / "out", sizes=Sizes(sliding_window_size=64)).config
    config["model_config"]["rope_scaling"] = {"rope_type": "linear", "factor": 2.0}
    with pytest.raises(UsageError, match="not possible with this model's rope_scaling"):
        plan_of(config)


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        (Sizes(sliding_window_size=128, context_window_size=256), "--context-window-size 256 and --sliding"),
        (Sizes(sliding_window_size=128, prefill_chunk_size=129), "129 is above --sliding-window-size 128"),
        (Sizes(sliding_window_size=128, attention_sink_size=128), "--attention-sink-size 128 does not fit"),
        (Sizes(sliding_window_size=128, attention_sink_size=-1), "--attention-sink-size -1 does not fit"),
        (Sizes(attention_sink_size=4), "--attention-sink-size 4 is not possible"),
        (Sizes(sliding_window_size=64, prefill_chunk_size=0), "--prefill-chunk-size is 0"),
        (Sizes(sliding_window_size=64, max_batch_size=0), "--max-batch-size is 0"),
    ],
)
def test_rolling_windows_that_cannot_be(sizes: Sizes, words: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        made("mistral", tmp_path / "out", sizes=sizes)
    assert words in caught.value.what


@pytest.mark.parametrize(
    ("stated", "expected", "warned"),
    [
        ({"temperature": 0.7, "top_p": 0.9}, {"temperature": 0.7, "top_p": 0.9}, False),
        ({"repetition_penalty": 1.1}, {"repetition_penalty": 1.1}, False),
        ({"temperature": None}, {"temperature": 1.0}, False),
        ({"top_p": 0}, {"top_p": 1.0}, True),
        ({"repetition_penalty": "high"}, {"repetition_penalty": 1.0}, True),
    ],
)
def test_sampling_defaults(
    stated: dict[str, Any], expected: dict[str, float], warned: bool, tmp_path: Path
) -> None:
    source = edited(tmp_path, "llama", file="generation_config.json", **stated)
    generated = generate(source, tmp_path / "out", quantization="q0f16")
    assert {key: generated.config[key] for key in expected} == expected
    assert any("which cannot be" in warning for warning in generated.warnings) == warned


def test_eos_may_be_a_list_and_must_exist(tmp_path: Path) -> None:
    source = edited(tmp_path, "gemma3_text", file="generation_config.json", eos_token_id=[2, 3, 99999])
    generated = generate(source, tmp_path / "out", quantization="q0f16")
    assert generated.config["conv_template"]["stop_token_ids"] == [2, 3, 5]
    assert generated.config["eos_token_id"] == [2, 3, 99999]  # the record of what the model says
    assert any("token 99999, which the tokenizer does not have" in w for w in generated.warnings)


def test_files_that_disagree_on_eos_are_told(tmp_path: Path) -> None:
    source = edited(tmp_path, "gemma3_text", file="generation_config.json", eos_token_id=[4, 5])
    generated = generate(source, tmp_path / "out", quantization="q0f16")
    assert generated.config["conv_template"]["stop_token_ids"] == [2, 4, 5]
    assert any(
        "disagree on what ends a reply" in w and "4 '<start_of_turn>'" in w for w in generated.warnings
    )


def test_a_tokenizer_larger_than_the_model_is_told(tmp_path: Path) -> None:
    generated = generate(edited(tmp_path, "llama", vocab_size=300), tmp_path / "out", quantization="q0f16")
    assert any("tokenizer has 376 tokens, the model only 300" in warning for warning in generated.warnings)


@pytest.mark.parametrize(
    ("name", "golden"),
    [("llama-2", "llama"), ("llama-3_1", "llama_tied"), ("gemma3_instruction", "gemma3_text")],
)
def test_a_named_template_has_mlc_llms_texts(name: str, golden: str, tmp_path: Path) -> None:
    ours = made(golden, tmp_path, conv_template=name).config["conv_template"]
    theirs = read(GOLDEN / golden / "expected" / CONFIG_NAME)["conv_template"]
    ids_and_templates = {"system_prefix_token_ids", "stop_token_ids", "role_templates"}
    assert {path.split(".")[0] for path in differences(ours, theirs)} <= ids_and_templates
    # Ids are this tokenizer's: the named tokens it has, and what its own files say.
    assert ours["system_prefix_token_ids"] == [1]
    assert ours["stop_token_ids"] == ([2, 5] if golden == "gemma3_text" else [2])


def test_a_named_template_that_is_not_the_models_is_told(tmp_path: Path) -> None:
    generated = made("llama_tied", tmp_path, conv_template="chatml")
    assert not any(case.exact for case in generated.cases)
    assert any(warning.startswith("one turn") for warning in generated.warnings)


def test_none_is_plain_text(tmp_path: Path) -> None:
    generated = made("llama_tied", tmp_path, conv_template="none")
    template = generated.config["conv_template"]
    assert template["roles"] == {"user": "", "assistant": ""}
    assert template["seps"] == [""]
    assert template["system_prefix_token_ids"] == [1]
    assert generated.cases == ()


def broken(tmp_path: Path, file: str, content: str | None) -> Path:
    source = edited(tmp_path, "llama")
    (source / file).unlink()
    if content is not None:
        (source / file).write_text(content, encoding="utf-8")
    return source


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("config.json", None, "has no config.json"),
        ("config.json", "{", "cannot be read as JSON"),
        ("config.json", "[]", "holds no JSON object"),
        ("config.json", '{"model_type": "llama"}', "does not describe a llama model"),
        ("config.json", '{"model_type": "mamba"}', "'mamba'"),
        ("config.json", {"max_position_embeddings": None}, "does not describe a llama model"),
        ("config.json", {"vocab_size": "many"}, "does not describe a llama model"),
        ("tokenizer.json", '{"added_tokens": ["<s>"]}', "added_tokens that are no tokens"),
        ("tokenizer_config.json", "{", "cannot be read as JSON"),
        ("generation_config.json", "nonsense", "cannot be read as JSON"),
        ("tokenizer.json", None, "has no tokenizer.json"),
        ("tokenizer.json", "{", "cannot be read as JSON"),
        ("tokenizer.json", "{}", "cannot be loaded"),
        (
            "tokenizer.json",
            '{"added_tokens": [{"content": "<s>", "id": 1}, {"content": "<s>", "id": 2}]}',
            "'<s>' more than once",
        ),
    ],
)
def test_a_broken_folder_is_told_in_plain_words(
    file: str, content: str | dict[str, Any] | None, words: str, tmp_path: Path
) -> None:
    if isinstance(content, dict):
        content = json.dumps(read(MODELS["llama"] / file) | content)
    with pytest.raises(UsageError) as caught:
        generate(broken(tmp_path, file, content), tmp_path / "out", quantization="q0f16")
    assert words in caught.value.what
    assert caught.value.remedy
    assert not (tmp_path / "out").exists()


def test_sentencepiece_alone_is_not_enough(tmp_path: Path) -> None:
    source = broken(tmp_path, "tokenizer.json", None)
    (source / "tokenizer.model").write_bytes(b"\x00")
    with pytest.raises(UsageError, match=r"only a SentencePiece tokenizer\.model") as caught:
        generate(source, tmp_path / "out", quantization="q0f16")
    assert "save_pretrained" in caught.value.remedy


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a folder"):
        generate(tmp_path / "nowhere", tmp_path / "out", quantization="q0f16")


def test_an_unknown_quantization(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Unknown quantization 'q4f16'"):
        made("llama", tmp_path, quantization="q4f16")


@pytest.mark.parametrize(
    ("name", "hint"),
    [("gemma3-instruction", "'gemma3_instruction'"), ("Auto", "'auto'"), ("lama-2", "'llama-2'")],
)
def test_an_unknown_template_name_has_a_hint(name: str, hint: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        made("llama", tmp_path, conv_template=name)
    assert f"Did you mean {hint}?" in caught.value.what
    assert "phi-3" in caught.value.why


def test_an_output_that_cannot_be_written(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_text("in the way", encoding="utf-8")
    with pytest.raises(StageError, match="Cannot write to"):
        made("llama", target)


def test_errors_have_an_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gen_config", str(tmp_path / "no"), "--quantization", "q0f16", "-o", str(tmp_path)]) == 2
    assert "is not a folder" in capsys.readouterr().err
