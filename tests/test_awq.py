"""AWQ checkpoints: taken over to the byte, computed to the logit, and every other pairing refused.

Expected bytes are those of mlc_llm's q4f16_autoawq as its loaders have them: the checkpoint's tensors,
int32 as uint32, joined along out_features where layers are joined, everything else float16.
"""

import json
from pathlib import Path
from typing import Any

import awq_models
import numpy as np
import pytest
from convert_support import read
from exports import GOLDEN, LIBRARY, decoder

from engine.backends import auto
from engine.catalog import QUANTIZATIONS
from engine.embedded import convert_weight, evaluate
from engine.embedded.__main__ import main
from engine.embedded.convert_weight import convert
from engine.errors import UsageError
from engine.estimate import estimate
from engine.model import facts as model_facts
from engine.plan import ExportPlan

AWQ = "q4f16_autoawq"


def quiet(*_: object) -> None:
    """No narration of progress."""


@pytest.fixture(scope="module")
def checkpoint(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, awq_models.Tensors, awq_models.Tensors]:
    folder = tmp_path_factory.mktemp("awq") / "model"
    source, weights = awq_models.make(folder)
    return folder, source, weights


def expected(source: awq_models.Tensors) -> dict[str, np.ndarray[Any, Any]]:
    result = {name: t for name, t in source.items() if name.endswith(".weight")}
    for i in range(awq_models.LAYERS):
        attention, mlp = f"model.layers.{i}.self_attn.", f"model.layers.{i}.mlp."
        joined = {
            f"{attention}qkv_proj": [f"{attention}{part}_proj" for part in "qkv"],
            f"{attention}o_proj": [f"{attention}o_proj"],
            f"{mlp}gate_up_proj": [f"{mlp}gate_proj", f"{mlp}up_proj"],
            f"{mlp}down_proj": [f"{mlp}down_proj"],
        }
        for name, parts in joined.items():
            for tensor in ("qweight", "qzeros", "scales"):
                whole = np.concatenate([source[f"{part}.{tensor}"] for part in parts], axis=1)
                result[f"{name}.{tensor}"] = whole.view(np.uint32) if whole.dtype == np.int32 else whole
    return result


@pytest.mark.parametrize("name", [AWQ, "q4f16_awq"])
def test_every_tensor_is_taken_over(
    checkpoint: Any, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convert_weight, "_BLOCK", 100)  # several blocks to a matrix
    folder, source, _ = checkpoint
    convert(folder, name, tmp_path, progress=quiet)
    found, want = read(tmp_path), expected(source)
    assert found.keys() == want.keys()
    for tensor, values in want.items():
        assert found[tensor][0] == str(values.dtype)
        np.testing.assert_array_equal(found[tensor][1], values)


def test_a_mistral_is_taken_over_as_a_llama_is(checkpoint: Any, tmp_path: Path) -> None:
    folder, source, _ = checkpoint
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "mistral", "architectures": ["MistralForCausalLM"], "sliding_window": None}
    (tmp_path / "config.json").write_text(json.dumps(config))
    convert(tmp_path / "config.json", AWQ, tmp_path / "out", source=folder, progress=quiet)
    found, want = read(tmp_path / "out"), expected(source)
    assert found.keys() == want.keys()
    assert all(found[tensor][1].tobytes() == values.tobytes() for tensor, values in want.items())


def test_tensors_come_in_the_order_of_the_source(checkpoint: Any, tmp_path: Path) -> None:
    """Each of the three parts of a layer comes when the first of its sources does, as mlc_llm loads them."""
    from engine.model.tensors import open_tensors

    folder, _, _ = checkpoint
    done = convert(folder, AWQ, tmp_path, progress=quiet)
    found = [record.tensor.name for shard in done.shards for record in shard.records]
    layers = {"q_proj": "qkv_proj", "k_proj": "qkv_proj", "v_proj": "qkv_proj"}
    layers |= {"gate_proj": "gate_up_proj", "up_proj": "gate_up_proj"}
    order: dict[str, None] = {}
    for name in open_tensors(folder).names:
        parts = name.split(".")
        order[".".join([*parts[:-2], layers.get(parts[-2], parts[-2]), parts[-1]])] = None
    assert found == list(order)


def test_sizes_are_those_of_the_checkpoint(checkpoint: Any, tmp_path: Path) -> None:
    folder, _, weights = checkpoint
    facts = model_facts.read(folder)
    done = convert(folder, AWQ, tmp_path, progress=quiet)
    sizes = estimate(facts, ExportPlan(source=str(folder), quantization=AWQ))
    assert facts.quant_method == "awq"
    assert facts.dtype == "AWQ"
    assert facts.parameter_count == sum(w.size for w in weights.values())
    assert sizes.disk_bytes == sizes.weight_bytes == done.nbytes
    assert sizes.shards == len(done.shards)


@pytest.fixture(scope="module")
def compiled(checkpoint: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export of the checkpoint for the CPU."""
    source, out = str(checkpoint[0]), tmp_path_factory.mktemp("awq-export")
    sizes = ["--context-window-size", "128", "--prefill-chunk-size", "32"]
    for arguments in (
        ["convert_weight", source, "--quantization", AWQ, "-o", str(out)],
        ["gen_config", source, "--quantization", AWQ, "--conv-template", "auto", *sizes, "-o", str(out)],
        ["compile", str(out), "--device", "cpu", "-o", str(out / LIBRARY["cpu"])],
    ):
        assert main(arguments) == 0
    return out


def test_stored_weights_are_the_checkpoints(checkpoint: Any, compiled: Path) -> None:
    _, parameters = decoder(compiled)
    stored = evaluate.stored_weights(compiled, parameters, QUANTIZATIONS[AWQ])
    _, _, weights = checkpoint
    for parameter in parameters:
        want = np.concatenate([weights[name] for name in parameter.sources])
        np.testing.assert_array_equal(stored[parameter.role][:], want)
        np.testing.assert_array_equal(stored[parameter.role][3:7], want[3:7])


@pytest.mark.parametrize("chunk", [40, 17, 1])
def test_logits_are_those_of_the_checkpoint(checkpoint: Any, compiled: Path, chunk: int) -> None:
    from engine.embedded.local import LocalModel

    spec, parameters = decoder(compiled)
    weights = evaluate.SourceWeights(parameters, checkpoint[2].__getitem__)
    ids = np.random.default_rng(5).integers(0, awq_models.VOCAB, 40)
    want = evaluate.logits(spec, weights, ids)
    local = LocalModel(compiled, compiled / LIBRARY["cpu"])
    for start in range(0, len(ids), chunk):
        found = local.step(ids[start : start + chunk].tolist())
        error = np.abs(found - want[min(start + chunk, len(ids)) - 1]).max() / want.std()
        assert error < 1e-2  # the KV cache is float16, nothing else is


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"quant_method": "gptq"},
            "takes over the 4 bit weights of an AWQ checkpoint, and this model is none",
        ),
        ({"group_size": 64}, "group_size = 64"),
        ({"bits": 3}, "bits = 3"),
        ({"zero_point": False}, "zero_point = False"),
        ({"version": "gemv"}, "version = gemv"),
    ],
)
def test_other_forms_are_refused(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    awq_models.make(tmp_path / "model", **settings)
    with pytest.raises(UsageError, match=message) as caught:
        convert(tmp_path / "model", AWQ, tmp_path / "out", progress=quiet)
    assert caught.value.remedy
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("stage", ["convert_weight", "gen_config"])
@pytest.mark.parametrize("method", ["awq", "gptq"])
def test_quantizing_again_is_refused(
    stage: str, method: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    awq_models.make(tmp_path / "model", quant_method=method)
    arguments = [stage, str(tmp_path / "model"), "--quantization", "q4f16_1", "-o", str(tmp_path / "out")]
    arguments += ["--conv-template", "auto"] if stage == "gen_config" else []
    assert main(arguments) == 2
    told = capsys.readouterr().err
    assert "quantized already" in told
    assert ("Choose q4f16_autoawq" in told) == (method == "awq")


def test_other_families_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    awq_models.make(folder)
    config = json.loads((GOLDEN / "gemma3_text" / "hf" / "config.json").read_text())
    own = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = own["quantization_config"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UsageError, match="AWQ checkpoints of gemma3_text models cannot be exported"):
        convert(folder, AWQ, tmp_path / "out", progress=quiet)


def test_a_layer_that_groups_do_not_divide_is_refused(checkpoint: Any, tmp_path: Path) -> None:
    folder = checkpoint[0]
    config = json.loads((folder / "config.json").read_text()) | {"intermediate_size": 200}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UsageError, match=r"down_proj\.weight is 128 x 200, which AWQ cannot store"):
        convert(tmp_path / "config.json", AWQ, tmp_path / "out", source=folder, progress=quiet)


def test_floats_in_the_place_of_integers_are_refused(tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    folder = tmp_path / "model"
    awq_models.make(folder)
    tensors = load_file(folder / "model.safetensors")
    name = "model.layers.0.mlp.down_proj.qweight"
    tensors[name] = tensors[name].astype(np.float32)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(UsageError, match=rf"{name} in model.safetensors has dtype F32"):
        convert(folder, AWQ, tmp_path / "out", progress=quiet)


def test_an_adapter_cannot_be_merged_into_integers(checkpoint: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be merged into an AWQ checkpoint"):
        convert(checkpoint[0], AWQ, tmp_path, lora_adapter=tmp_path, progress=quiet)


def test_plans_are_checked_against_the_source(checkpoint: Any) -> None:
    awq, plain = model_facts.read(checkpoint[0]), model_facts.read(GOLDEN / "llama" / "hf")
    for name, quantization in QUANTIZATIONS.items():
        plan = ExportPlan(source="model", quantization=name, compile=False)
        right, wrong = (awq, plain) if quantization.from_awq else (plain, awq)
        auto.choose(plan, right)
        with pytest.raises(UsageError, match="AWQ checkpoint"):
            auto.choose(plan, wrong)


@pytest.mark.parametrize("name", ["q0bf16", "q4bf16_0", "q4bf16_1"])
def test_bfloat16_is_refused_for_browsers_only(name: str) -> None:
    facts = model_facts.read(GOLDEN / "llama" / "hf")
    with pytest.raises(UsageError, match=f"{name} cannot run on webgpu") as caught:
        auto.choose(ExportPlan(source="model", quantization=name, device="webgpu"), facts)
    assert name.replace("bf16", "f16") in caught.value.remedy
    auto.choose(ExportPlan(source="model", quantization=name, device="cpu"), facts)
    auto.choose(ExportPlan(source="model", quantization=name, device="webgpu", compile=False), facts)
