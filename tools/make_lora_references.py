"""The LoRA adapters of tests/data/lora: what PEFT writes, and what its merge_and_unload makes of them.

    pip install --group reference .
    python tools/make_lora_references.py tests/data/lora

For each case FOLDER/CASE/ has base.safetensors (a tiny model of transformers with random weights),
adapter_config.json and adapter_model.* as PEFT saves them, and merged.safetensors.
"""

import sys
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, PretrainedConfig

LLAMA = LlamaConfig(
    vocab_size=24,
    hidden_size=16,
    intermediate_size=20,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
    head_dim=8,
)
GPT2 = GPT2Config(vocab_size=24, n_embd=16, n_layer=1, n_head=2, n_positions=8)

CASES: dict[str, tuple[PretrainedConfig, torch.dtype, LoraConfig, bool]] = {
    "patterns-bf16": (
        LLAMA,
        torch.bfloat16,
        LoraConfig(
            r=4,
            lora_alpha=6,
            target_modules=["q_proj", "v_proj", "down_proj"],
            rank_pattern={"v_proj": 2, "layers.1.self_attn.q_proj": 3},
            alpha_pattern={r".*\.0\.mlp\.down_proj": 5},
        ),
        True,
    ),
    "rslora-f16": (
        LLAMA,
        torch.float16,
        LoraConfig(r=3, lora_alpha=16, use_rslora=True, target_modules="all-linear"),
        False,
    ),
    "embedding-f32": (
        LLAMA,
        torch.float32,
        LoraConfig(r=2, lora_alpha=4, target_modules=["embed_tokens", "k_proj"], modules_to_save=["lm_head"]),
        True,
    ),
    "conv1d-f32": (
        GPT2,
        torch.float32,
        LoraConfig(r=2, lora_alpha=8, target_modules=["c_attn", "c_proj"], fan_in_fan_out=True),
        True,
    ),
}


def saved(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The tensors of a model as save_pretrained names them: a tied head is left out."""
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    state = {name: t.detach().contiguous().clone() for name, t in model.state_dict().items()}
    return {name: t for name, t in state.items() if not (tied and name == "lm_head.weight")}


def make(folder: Path, config: PretrainedConfig, dtype: torch.dtype, lora: LoraConfig, safe: bool) -> None:
    """One case."""
    torch.manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    model = AutoModelForCausalLM.from_config(config).to(dtype)
    base = saved(model)
    save_file(base, folder / "base.safetensors")
    trained = get_peft_model(model, lora)
    for name, parameter in trained.named_parameters():
        if "lora_" in name or "modules_to_save" in name:
            parameter.data = torch.randn_like(parameter) * 0.1
    trained.save_pretrained(folder, safe_serialization=safe)
    (folder / "README.md").unlink(missing_ok=True)
    # Loaded afresh, as one who merges would: PEFT then keeps the factors in float32.
    again = AutoModelForCausalLM.from_config(config).to(dtype)
    again.load_state_dict(base, strict=False)
    again.tie_weights()
    merged = PeftModel.from_pretrained(again, folder).merge_and_unload()
    save_file(saved(merged), folder / "merged.safetensors")


def main() -> None:
    """Write all cases."""
    for name, case in CASES.items():
        make(Path(sys.argv[1]) / name, *case)


if __name__ == "__main__":
    main()
