"""Folders in the shape of published models, through facts, advice, and every stage that reads them."""

import json
import re
import shutil
from math import prod
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from conftest import GOLDEN
from convert_support import check_whole, silent
from published_chats import CHATS
from published_configs import MADE, PUBLISHED, changed
from safetensors.numpy import save_file

from engine.advice import advise
from engine.backends.embedded import EmbeddedBackend
from engine.embedded.compile import read_config
from engine.embedded.convert_weight import convert
from engine.embedded.gen_config import generate
from engine.embedded.library import plan_of
from engine.embedded.source import decoder_of
from engine.embedded.spec import DecoderSpec, Parameter
from engine.estimate import estimate
from engine.model import facts
from engine.model.config import normalise
from engine.plan import ExportPlan

Arrays = dict[str, np.ndarray[Any, Any]]
CONFIGS = PUBLISHED | MADE
# What their tensors' names begin with, where that is not what transformers calls them today.
PREFIXES = {
    "google/gemma-3-4b-it": "language_model.",
    "google/gemma-3-27b-it": "language_model.",
    "microsoft/DialoGPT-medium": "transformer.",
}


def rows_of(parameter: Parameter, spec: DecoderSpec) -> list[int]:
    """The rows that each source of a parameter has."""
    if len(parameter.sources) != 3:
        return [parameter.shape[0] // len(parameter.sources)] * len(parameter.sources)
    keys = spec.num_key_value_heads * spec.head_dim
    return [spec.num_attention_heads * spec.head_dim, keys, keys]


def weights_of(name: str, spec: DecoderSpec, parameters: tuple[Parameter, ...]) -> Arrays:
    """Tensors under the names that the published weights have, and what lies beside them there."""
    rng = np.random.default_rng(3)
    prefix = PREFIXES.get(name, "")
    out: Arrays = {}
    for parameter in parameters:
        for source, rows in zip(parameter.sources, rows_of(parameter, spec), strict=True):
            shape = (rows, *parameter.shape[1:])
            values = rng.standard_normal(shape[::-1] if parameter.transpose else shape)
            out[prefix + source] = values.astype(ml_dtypes.bfloat16)
    if prefix == "language_model.":
        out["multi_modal_projector.mm_soft_emb_norm.weight"] = np.ones(8, np.float32)
        out["vision_tower.vision_model.encoder.layers.0.mlp.fc1.bias"] = np.ones(8, np.float32)
    for i in range(len(spec.layers)):
        if spec.model_type == "gpt2":
            out[f"{prefix}h.{i}.attn.bias"] = np.ones((1, 1, 4, 4), np.float32)
        if spec.model_type == "gpt_neox":
            out[f"gpt_neox.layers.{i}.attention.masked_bias"] = np.array(-1e9, np.float32)
            out[f"gpt_neox.layers.{i}.attention.bias"] = np.ones((1, 1, 4, 4), np.uint8)
            out[f"gpt_neox.layers.{i}.attention.rotary_emb.inv_freq"] = np.ones(4, np.float32)
        if "Llama-2" in name or "stablelm" in name:
            out[f"model.layers.{i}.self_attn.rotary_emb.inv_freq"] = np.ones(4, np.float32)
    if name == "microsoft/DialoGPT-medium":
        out["lm_head.weight"] = out["transformer.wte.weight"].copy()
    return out


def test_the_list_of_published_models_is_the_one_that_is_tested() -> None:
    page = (Path(__file__).parent.parent / "docs" / "models.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| (\S+/\S+) \| (\w+) \|", page, re.MULTILINE))
    told = {name: decoder_of(normalise(config))[0].model_type for name, config in PUBLISHED.items()}
    assert rows == told
    assert set(CHATS) <= set(told)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_published_folder(name: str, tmp_path: Path) -> None:
    config = changed(CONFIGS[name], [], {"vocab_size": 384})
    spec, parameters = decoder_of(normalise(config))
    folder = tmp_path / "hf"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(GOLDEN / "llama_tied" / "hf" / file, folder / file)
    tensors = weights_of(name, spec, parameters)
    save_file(tensors, folder / "model.safetensors")

    found = facts.read(folder)
    assert found.spec == spec
    text = config.get("text_config", config)
    longest = text.get("max_position_embeddings", text.get("n_positions", 131072))
    assert found.max_context == longest
    assert found.parameter_count == sum(prod(p.shape) for p in parameters)
    assert found.source_bytes == sum(t.nbytes for t in tensors.values())
    plan = ExportPlan(source=str(folder), quantization="q4f16_1")
    EmbeddedBackend().cover(plan, found)
    # Nothing that is said of it as a model of its family is a warning about what its config says.
    assert not {"context-above-model", "prefill-above-context"} & {a.code for a in advise(plan, found)}

    out = tmp_path / "out"
    convert(folder, "q4f16_1", out, progress=silent)
    assert sum(len(shard["records"]) for shard in check_whole(out)["records"]) > len(parameters)
    generate(folder, out, quantization="q4f16_1")
    # The library is compiled from what gen_config wrote alone.
    stated = plan_of(read_config(out, {}))
    assert stated.spec == spec
    assert estimate(found, plan).disk_bytes == sum(shard["nbytes"] for shard in check_whole(out)["records"])
