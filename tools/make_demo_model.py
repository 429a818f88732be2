"""Make engine/demo_model: train a Gemma 3 of about one million parameters on tools/demo_corpus.py.

Runs about a quarter of an hour on one core, with the packages of the dependency group "reference":
    python tools/make_demo_model.py [FOLDER]
After a third of the run, three steps in four see the weights as q4f32_1 stores them, with
straight-through gradients, so that the answers survive 4 bit quantization. The same seed and the
same torch give the same model on one kind of processor; elsewhere the last bits of the arithmetic,
and so the weights, may differ.
"""

import argparse
import itertools
import json
import random
import sys
import time
from pathlib import Path

import torch
from demo_corpus import conversations
from safetensors.torch import save
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import Gemma3ForCausalLM, Gemma3TextConfig

REPOSITORY = Path(__file__).resolve().parent.parent
SPECIAL = ("<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>")
PAD, EOS, BOS, UNK, START, END = range(len(SPECIAL))
VOCAB_SIZE, CONTEXT, WINDOW, GROUP = 1024, 1024, 64, 32
SEQUENCE, BATCH, STEPS, WARMUP = 256, 16, 750, 40

CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% if messages[0]['role'] == 'system' %}"
    "{% set first = messages[0]['content'] | trim + '\n\n' %}{% set turns = messages[1:] %}"
    "{% else %}{% set first = '' %}{% set turns = messages %}{% endif %}"
    "{% for message in turns %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}"
    "{{ '<start_of_turn>' + role + '\n' + (first if loop.first else '') }}"
    "{{ message['content'] | trim }}{{ '<end_of_turn>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)

# As transformers 4.55 writes it; the fields it shares with the model built below are taken from here.
CONFIG = {
    "architectures": ["Gemma3ForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "attn_logit_softcapping": None,
    "bos_token_id": BOS,
    "eos_token_id": [EOS, END],
    "final_logit_softcapping": None,
    "head_dim": 32,
    "hidden_activation": "gelu_pytorch_tanh",
    "hidden_size": 128,
    "initializer_range": 0.02,
    "intermediate_size": 256,
    "layer_types": ["sliding_attention"] * 5 + ["full_attention"],
    "max_position_embeddings": CONTEXT,
    "model_type": "gemma3_text",
    "num_attention_heads": 4,
    "num_hidden_layers": 6,
    "num_key_value_heads": 2,
    "pad_token_id": PAD,
    "query_pre_attn_scalar": 32,
    "rms_norm_eps": 1e-06,
    "rope_local_base_freq": 10000.0,
    "rope_scaling": None,
    "rope_theta": 1000000.0,
    "sliding_window": WINDOW,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.55.0",
    "use_cache": True,
    "vocab_size": VOCAB_SIZE,
}


def make_tokenizer(seed: int) -> Tokenizer:
    """A BPE with byte fallback, spaces written as U+2581, digits and line feeds alone, as Gemma's."""
    trained = Tokenizer(models.BPE(unk_token="<unk>"))
    trained.normalizer = normalizers.Replace(" ", "\u2581")
    trained.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split("\u2581", "merged_with_next"),
            pre_tokenizers.Split(Regex(r"[0-9\n]|[^\w\u2581]"), "isolated"),
        ]
    )
    trainer = trainers.BpeTrainer(vocab_size=VOCAB_SIZE - len(SPECIAL) - 256, show_progress=False)
    source = itertools.islice(conversations(random.Random(seed)), 20_000)
    alphabet = "".join(map(chr, range(32, 127)))
    trained.train_from_iterator(
        itertools.chain(
            [alphabet, "user\nmodel\n" * 20_000], ("\n".join((q, a)) for turns in source for q, a in turns)
        ),
        trainer,
    )
    learnt = json.loads(trained.to_str())["model"]
    tokens = [*SPECIAL, *(f"<0x{i:02X}>" for i in range(256))]
    tokens += sorted(set(learnt["vocab"]) - set(tokens), key=learnt["vocab"].__getitem__)
    if len(tokens) > VOCAB_SIZE:
        raise SystemExit(f"The tokenizer has {len(tokens)} tokens, more than {VOCAB_SIZE}.")
    tokenizer = Tokenizer(
        models.BPE(
            vocab={token: i for i, token in enumerate(tokens)},
            merges=[tuple(pair) for pair in learnt["merges"]],
            unk_token="<unk>",
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    tokenizer.normalizer = normalizers.Replace(" ", "\u2581")
    tokenizer.pre_tokenizer = pre_tokenizers.Split("\u2581", "merged_with_next")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    return tokenizer


def batches(tokenizer: Tokenizer, seed: int) -> "itertools.chain[tuple[torch.Tensor, torch.Tensor]]":
    """Endless (ids, labels) [BATCH, SEQUENCE] int64; only what the model says has a label.

    A conversation longer than SEQUENCE is cut; shorter ones are padded, never joined, since a
    real prompt begins with the first turn.
    """
    source = conversations(random.Random(seed))

    def pieces(text: str) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False).ids

    newline, user, model = pieces("\n"), pieces("user\n"), pieces("model\n")
    while True:
        ids = torch.full((BATCH, SEQUENCE), PAD)
        labels = torch.full((BATCH, SEQUENCE), -100)
        for row in range(BATCH):
            at: list[int] = [BOS]
            said: list[bool] = [False]
            for question, answer in next(source):
                ask = [START, *user, *pieces(question), END, *newline, START, *model]
                reply = [*pieces(answer), END]
                at += ask + reply + newline
                said += [False] * len(ask) + [True] * len(reply) + [False] * len(newline)
            n = min(len(at), SEQUENCE)
            ids[row, :n] = torch.tensor(at[:n])
            labels[row, :n] = torch.where(torch.tensor(said[:n]), ids[row, :n], -100)
        yield ids, labels


def as_stored(weight: torch.Tensor) -> torch.Tensor:
    """`weight` as q4f32_1 keeps it (norms: bf16 of 1 + w), with the gradient of the identity."""
    with torch.no_grad():
        if weight.ndim == 1:
            stored = (1 + weight.bfloat16()).float() - 1
        else:
            rows = weight.bfloat16().float().reshape(weight.shape[0], -1, GROUP)
            scale = rows.abs().amax(-1, keepdim=True).clamp_min(1e-12) / 7
            integers = (rows / scale + 7).round().clamp(0, 14) - 7
            stored = (integers * scale.bfloat16().float()).reshape(weight.shape)
    return weight + (stored - weight).detach()


def train(tokenizer: Tokenizer, seed: int, steps: int) -> dict[str, torch.Tensor]:
    """The trained weights in bf16 under their Hugging Face names."""
    torch.manual_seed(seed)
    fields = {k: v for k, v in CONFIG.items() if k not in ("torch_dtype", "transformers_version")}
    model = Gemma3ForCausalLM(Gemma3TextConfig(**fields))
    weights = dict(model.named_parameters())
    matrices = [w for name, w in weights.items() if w.ndim == 2 and "embed" not in name]
    rest = [w for name, w in weights.items() if w.ndim != 2 or "embed" in name]
    optimizers = [
        torch.optim.Muon(matrices, lr=0.02, weight_decay=0.01, momentum=0.95),
        torch.optim.AdamW(rest, lr=4e-3, betas=(0.9, 0.95), weight_decay=0.0),
    ]
    peaks = [group["lr"] for optimizer in optimizers for group in optimizer.param_groups]
    begun = time.monotonic()
    for step, (ids, labels) in enumerate(itertools.islice(batches(tokenizer, seed + 1), steps)):
        share = min(1.0, (step + 1) / WARMUP, 0.02 + 0.98 * (steps - step) / (0.6 * steps))
        for optimizer, peak in zip(optimizers, peaks, strict=True):
            optimizer.param_groups[0]["lr"] = peak * share
        quantized = step > 0.3 * steps and step % 4 != 0
        used = {name: as_stored(w) if quantized else w for name, w in weights.items()}
        length = int((ids != PAD).sum(1).max())
        batch = {"input_ids": ids[:, :length], "labels": labels[:, :length]}
        loss = torch.func.functional_call(model, used, kwargs=batch, tie_weights=True).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(list(weights.values()), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if step % 20 == 0 or step == steps - 1:
            spent = time.monotonic() - begun
            sys.stderr.write(f"{step + 1}/{steps} loss {loss.item():.4f} {spent:.0f} s\n")
            sys.stderr.flush()
    return {name: w.detach().bfloat16().contiguous() for name, w in weights.items()}


def write(folder: Path, tokenizer: Tokenizer, weights: dict[str, torch.Tensor]) -> None:
    """A Hugging Face model folder."""
    folder.mkdir(parents=True, exist_ok=True)

    def dump(name: str, content: dict[str, object]) -> None:
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

    (folder / "model.safetensors").write_bytes(save(weights, metadata={"format": "pt"}))
    dump("config.json", CONFIG)
    dump("tokenizer.json", json.loads(tokenizer.to_str()))
    dump(
        "generation_config.json",
        {
            "bos_token_id": BOS,
            "do_sample": True,
            "eos_token_id": [EOS, END],
            "pad_token_id": PAD,
            "temperature": 0.7,
            "top_p": 0.95,
            "transformers_version": "4.55.0",
        },
    )
    dump(
        "tokenizer_config.json",
        {
            "add_bos_token": True,
            "bos_token": "<bos>",
            "chat_template": CHAT_TEMPLATE,
            "eos_token": "<eos>",
            "model_max_length": CONTEXT,
            "pad_token": "<pad>",
            "tokenizer_class": "PreTrainedTokenizerFast",
            "unk_token": "<unk>",
        },
    )


def main() -> None:
    """Make the model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=REPOSITORY / "engine" / "demo_model")
    parser.add_argument("--seed", type=int, default=20)
    parser.add_argument("--steps", type=int, default=STEPS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    tokenizer = make_tokenizer(arguments.seed)
    write(arguments.folder, tokenizer, train(tokenizer, arguments.seed, arguments.steps))


if __name__ == "__main__":
    main()
