"""What transformers computes for the golden models: the reference.safetensors that tests compare with.

    pip install --group reference .
    python tools/make_references.py tests/data/golden/*            # compare with what is there
    python tools/make_references.py --write tests/data/golden/*    # write anew

For each folder (hf/ as found on the Hub): `logits` [n, vocab] float32 of `input_ids` [n] over the whole
sequence from the source weights, `logits_q0f32` and `logits_q4f32_1` from the weights as those exports
store them, and `greedy_q4f32_1`, the greedy continuation of `prompt_ids` on the latter, with `margin`,
the smallest gap between the two best logits on the way, in standard deviations.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from transformers import AutoModelForCausalLM

from engine.catalog import QUANTIZATIONS
from engine.embedded.convert_weight import convert
from engine.embedded.evaluate import stored_weights
from engine.embedded.locate import located
from engine.embedded.source import decoder_of
from engine.model.config import normalise
from engine.model.files import read_json_object

GREEDY = 12


def model_of(folder: Path) -> torch.nn.Module:
    """The model of transformers in float32, on its eager attention."""
    model = AutoModelForCausalLM.from_pretrained(
        folder / "hf", dtype=torch.float32, attn_implementation="eager"
    )
    return model.eval()


def logits(model: torch.nn.Module, ids: np.ndarray) -> np.ndarray:
    """float32 [n, vocab]."""
    with torch.no_grad():
        return model(torch.from_numpy(ids.astype(np.int64))[None]).logits[0].float().numpy()


def store(model: torch.nn.Module, folder: Path, quantization: str) -> None:
    """Put the weights that an export of `quantization` stores into `model`."""
    spec, parameters = decoder_of(normalise(read_json_object(folder / "hf" / "config.json")))
    state = model.state_dict()
    # transformers 5 renames GPT-NeoX's head when it loads and saves.
    if "embed_out.weight" not in state:
        state["embed_out.weight"] = state["lm_head.weight"]
    parameters = located(parameters, state)
    with tempfile.TemporaryDirectory() as out:
        convert(folder / "hf", quantization, Path(out))
        stored = stored_weights(Path(out), parameters, QUANTIZATIONS[quantization])
        for parameter in parameters:
            value = torch.from_numpy(np.array(stored[parameter.role][:], np.float32))
            # Stored as 1 + w; transformers adds the 1 itself, and float32 takes it off exactly.
            value -= float(parameter.plus_one)
            if heads := parameter.interleaved_heads:
                by_part = value.reshape(3, heads, -1, *value.shape[1:])
                value = by_part.transpose(0, 1).reshape(value.shape)
            axis = 1 if parameter.transpose else 0
            parts = torch.split(value, [state[name].shape[axis] for name in parameter.sources])
            for name, part in zip(parameter.sources, parts, strict=True):
                state[name].copy_(part.T if parameter.transpose else part)
    if spec.tie_word_embeddings:
        model.tie_weights()


def references(folder: Path, ids: np.ndarray, prompt: np.ndarray) -> dict[str, np.ndarray]:
    """All that reference.safetensors holds for `ids` and the `prompt`, int32 [tokens]."""
    model = model_of(folder)
    out = {"input_ids": ids, "logits": logits(model, ids)}
    for quantization in ("q0f32", "q4f32_1"):
        store(model, folder, quantization)
        out[f"logits_{quantization}"] = logits(model, ids)
    said, gaps = prompt.tolist(), []
    for _ in range(GREEDY):
        last = logits(model, np.asarray(said))[-1]
        best = np.sort(last)[-2:]
        gaps.append((best[1] - best[0]) / last.std())
        said.append(int(last.argmax()))
    out["prompt_ids"] = prompt
    out["greedy_q4f32_1"] = np.asarray(said[len(prompt) :], np.int32)
    out["margin"] = np.asarray([min(gaps)], np.float32)
    return out


def main() -> int:
    """1 where a committed reference differs by more than float32 rounding does."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    parser.add_argument("--write", action="store_true", help="replace reference.safetensors")
    arguments = parser.parse_args()
    worst = 0.0
    for folder in arguments.folders:
        committed = load_file(folder / "reference.safetensors")
        made = references(folder, committed["input_ids"], committed["prompt_ids"])
        errors = {
            name: float(np.abs(made[name] - committed[name]).max() / max(committed[name].std(), 1e-9))
            for name in made
            if name.startswith("logits")
        }
        same = made["greedy_q4f32_1"].tolist() == committed["greedy_q4f32_1"].tolist()
        sys.stdout.write(json.dumps({"model": folder.name, **errors, "greedy": same}) + "\n")
        worst = max(worst, *errors.values(), 0.0 if same else 1.0)
        if arguments.write:
            save_file(made, folder / "reference.safetensors")
    return int(worst > 1e-4)


if __name__ == "__main__":
    sys.exit(main())
