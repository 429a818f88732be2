"""LoRA adapters: merged as PEFT merges them, into joined parameters too, and refused in plain words."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from engine.embedded import convert_weight
from engine.embedded.__main__ import main
from engine.embedded.convert_weight import convert
from engine.errors import UsageError
from engine.model.lora import open_adapter
from engine.model.tensors import SINGLE_FILE, open_tensors

DATA = Path(__file__).parent / "data"
LORA = DATA / "lora"
CASES = sorted(path.name for path in LORA.iterdir())
TIED = DATA / "golden" / "llama_tied" / "hf"
RANK, ALPHA = 3, 8

Tensors = dict[str, np.ndarray[Any, Any]]


def silent(*_: object) -> None:
    """No narration of progress."""


# What PEFT makes of it


@pytest.mark.parametrize("case", CASES)
def test_every_tensor_is_what_peft_merges(case: str) -> None:
    base, expected = (open_tensors(LORA / case / f"{name}.safetensors") for name in ("base", "merged"))
    merged = open_adapter(LORA / case).merged_into(base)
    assert merged.names == base.names
    differing = []
    for name in expected.names:
        found, wanted = merged.read(name), expected.read(name)
        assert found.dtype == wanted.dtype
        if wanted.dtype == np.float32:  # PEFT sums its products in float32, in some order
            np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-7 * np.abs(wanted).max())
        else:
            np.testing.assert_array_equal(found, wanted)
        if not np.array_equal(wanted, base.read(name)):
            differing.append(name)
    assert set(differing) == set(merged.changed)
    assert differing


@pytest.mark.parametrize("case", CASES)
def test_rows_are_a_slice_of_the_whole(case: str) -> None:
    merged = open_adapter(LORA / case).merged_into(open_tensors(LORA / case / "base.safetensors"))
    for name in merged.changed:
        whole = merged.read(name)
        for rows in (slice(0, 1), slice(3, 7), slice(5, 99)):
            np.testing.assert_array_equal(merged.read(name, rows), whole[rows])


# Through the export


@pytest.fixture
def adapter(tmp_path: Path) -> Callable[..., Path]:
    """Makes an adapter for the golden llama_tied model, its tensors and configuration changed as given."""

    def make(change: Callable[[Tensors], object] | None = None, **config: object) -> Path:
        folder = tmp_path / "adapter"
        folder.mkdir(exist_ok=True)
        rng = np.random.default_rng(5)
        tensors: Tensors = {}
        for module, (out, into) in {
            "model.layers.0.self_attn.k_proj": (32, 64),
            "model.layers.1.mlp.up_proj": (160, 64),
            "model.layers.1.mlp.down_proj": (64, 160),
        }.items():
            for side, shape in (("A", (RANK, into)), ("B", (out, RANK))):
                name = f"base_model.model.{module}.lora_{side}.weight"
                tensors[name] = rng.standard_normal(shape).astype(np.float32) * 0.1
        if change is not None:
            change(tensors)
        save_file(tensors, folder / "adapter_model.safetensors")
        settings = {"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA, "bias": "none"} | config
        (folder / "adapter_config.json").write_text(json.dumps(settings))
        return folder

    return make


def merged_by_hand(adapter: Path, to: Path) -> Path:
    """The golden model with the adapter's products added to its tensors, as a model of its own."""
    shutil.copytree(TIED, to)
    tensors, factors = load_file(to / SINGLE_FILE), load_file(adapter / "adapter_model.safetensors")
    for name, a in factors.items():
        if ".lora_A." in name:
            b = factors[name.replace(".lora_A.", ".lora_B.")]
            target = name.removeprefix("base_model.model.").replace(".lora_A.", ".")
            value = tensors[target]
            sum_ = value.astype(np.float32) + np.float32(ALPHA / RANK) * np.einsum("or,ri->oi", b, a)
            tensors[target] = sum_.astype(value.dtype)
    save_file(tensors, to / SINGLE_FILE)
    return to


@pytest.mark.parametrize("quantization", ["q0f16", "q4f32_1"])
def test_an_export_has_the_bytes_of_the_merged_model(
    quantization: str, adapter: Callable[..., Path], tmp_path: Path
) -> None:
    lora = adapter()
    by_hand = merged_by_hand(lora, tmp_path / "merged")
    convert(by_hand, quantization, tmp_path / "expected", progress=silent)
    convert(TIED, quantization, tmp_path / "found", lora_adapter=lora, progress=silent)
    convert(TIED, quantization, tmp_path / "without", progress=silent)
    found, expected, without = (
        (tmp_path / name / "tensor-cache.json").read_bytes() for name in ("found", "expected", "without")
    )
    assert found == expected
    assert found != without


def test_block_size_changes_no_byte(
    adapter: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lora = adapter()
    convert(TIED, "q0f32", tmp_path / "a", lora_adapter=lora, progress=silent)
    monkeypatch.setattr(convert_weight, "_BLOCK", 100)
    convert(TIED, "q0f32", tmp_path / "b", lora_adapter=lora, progress=silent)
    found = [(tmp_path / name / "tensor-cache.json").read_bytes() for name in "ab"]
    assert found[0] == found[1]


def test_the_flag_of_the_official_command_merges(
    adapter: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["convert_weight", str(TIED), "--quantization", "q0f16", "-o", str(tmp_path / "out")]
    assert main([*arguments, "--lora-adapter", str(adapter())]) == 0
    assert "into 3 tensors" in capsys.readouterr().err


# Adapters that do not fit


def refused(folder: Path) -> UsageError:
    with pytest.raises(UsageError) as caught:
        convert(TIED, "q0f16", folder.parent / "out", lora_adapter=folder, progress=silent)
    assert not (folder.parent / "out").exists()
    assert caught.value.remedy
    return caught.value


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"peft_type": "IA3"}, "is of the kind IA3"),
        ({"use_dora": True}, "is a DoRA adapter"),
        ({"bias": "all"}, "also changes biases"),
        ({"lora_bias": True}, "also changes biases"),
        ({"init_lora_weights": "pissa_niter_16"}, "init_lora_weights = 'pissa_niter_16'"),
        ({"init_lora_weights": "olora"}, "init_lora_weights = 'olora'"),
        ({"layer_replication": [[0, 2]]}, "sets layer_replication"),
        ({"a_setting_of_next_year": 1}, "sets a_setting_of_next_year"),
        ({"trainable_token_indices": [1]}, "sets trainable_token_indices"),
        ({"r": 4}, "the rank 4, its weights have 3"),
        ({"rank_pattern": {"up_proj": 5}}, r"gives model.layers.1.mlp.up_proj the rank 5"),
        ({"rank_pattern": {"(": 5}}, "says rank_pattern = '('"),
        ({"r": "3"}, "says r = '3'"),
        ({"r": 0}, "says r = 0"),
        ({"lora_alpha": None}, "says lora_alpha = None"),
        (
            {"fan_in_fan_out": True},
            "does not fit: model.layers.0.self_attn.k_proj is for weights of [64, 32]",
        ),
    ],
)
def test_kinds_and_settings_that_cannot_be_merged(
    config: dict[str, Any], message: str, adapter: Callable[..., Path]
) -> None:
    assert message in refused(adapter(**config)).what


@pytest.mark.parametrize(
    "config", [{"init_lora_weights": "gaussian"}, {"init_lora_weights": False}, {"corda_config": None}]
)
def test_settings_that_change_nothing(config: dict[str, Any], adapter: Callable[..., Path]) -> None:
    assert len(open_adapter(adapter(**config)).merged_into(open_tensors(TIED)).changed) == 3


K = "base_model.model.model.layers.0.self_attn.k_proj.lora_"
ANY = np.ones((2, 2), np.float32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop(f"{K}B.weight"), "lacks the factor lora_B of model.layers.0.self_attn.k_proj"),
        (lambda t: t.update({f"{K}A.weight": np.ones((3, 48), np.float32)}), "the model has [32, 64]"),
        (lambda t: t.update({f"{K}A.weight": np.ones((2, 64), np.float32)}), "do not fit each other"),
        (lambda t: t.update({f"{K}A.weight": np.ones((3, 64, 1, 1), np.float32)}), "do not fit each other"),
        (lambda t: t.update({f"{K}A.weight": np.ones((3, 64), np.int8)}), "has dtype I8"),
        (lambda t: t.update({f"{K}magnitude_vector.weight": ANY}), "no part of plain LoRA"),
        (lambda t: t.update({f"{K}B.bias": ANY}), "no part of plain LoRA"),
        (lambda t: t.update({"other": ANY}), "no part of plain LoRA"),
        (
            lambda t: t.update({"base_model.model.model.layers.7.mlp.up_proj.lora_A.weight": ANY}),
            "changes model.layers.7.mlp.up_proj, which the model does not have",
        ),
        (lambda t: t.update({"base_model.model.lm_head.lora_A.weight": ANY}), "changes lm_head"),
        (
            lambda t: t.update(
                {"base_model.model.model.embed_tokens.weight": np.ones((400, 64), np.float32)}
            ),
            "embed_tokens.weight is for weights of [400, 64]",
        ),
        (lambda t: t.clear(), "has no LoRA weights"),
    ],
)
def test_weights_that_do_not_fit(
    change: Callable[[Tensors], object], message: str, adapter: Callable[..., Path]
) -> None:
    assert message in refused(adapter(change)).what


def embedding(tensors: Tensors) -> None:
    tensors["base_model.model.model.embed_tokens.lora_embedding_A"] = np.ones((RANK, 384), np.float32)
    tensors["base_model.model.model.embed_tokens.lora_embedding_B"] = np.ones((64, RANK), np.float32)


def test_an_embedding_that_is_also_the_head_must_have_been_trained_as_both(
    adapter: Callable[..., Path], tmp_path: Path
) -> None:
    assert "also the output head" in refused(adapter(embedding)).what
    convert(
        TIED,
        "q0f16",
        tmp_path / "out",
        lora_adapter=adapter(embedding, ensure_weight_tying=True),
        progress=silent,
    )


def test_folders_that_hold_no_adapter(adapter: Callable[..., Path], tmp_path: Path) -> None:
    assert "has no adapter_config.json" in refused(tmp_path / "nowhere").what
    error = refused(shutil.copytree(TIED, tmp_path / "model"))
    assert "It is a whole model." in error.why
    lora = adapter()
    (lora / "adapter_config.json").write_text("{")
    assert "not valid JSON" in refused(lora).what
    lora = adapter()
    (lora / "adapter_model.safetensors").unlink()
    assert "has no weights" in refused(lora).what


def test_names_may_have_more_or_less_before_them_than_the_model_has(
    adapter: Callable[..., Path], tmp_path: Path
) -> None:
    lora = adapter()
    for change in (lambda name: name.removeprefix("model."), lambda name: f"language_model.{name}"):
        save_file({change(n): t for n, t in load_file(TIED / SINGLE_FILE).items()}, tmp_path / SINGLE_FILE)
        merged = open_adapter(lora).merged_into(open_tensors(tmp_path / SINGLE_FILE))
        assert change("model.layers.0.self_attn.k_proj.weight") in merged.changed
