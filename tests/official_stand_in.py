"""A program in the place of mlc_llm: its command line, its noise, and how it goes wrong.

Installed by `official_support` as the package `mlc_llm` (or `mlc_chat`) of an environment of a test's own.
The work is done by our own stages, in the interpreter STAND_IN_PYTHON; where STAND_IN_PYTHON is not set it
only answers --help. STAND_IN_DOES says what goes wrong, in every stage or in one ("compile:nothing"):

  nothing    ends well and writes nothing            late     dies after the shards, as for a missing tensor
  hang       never ends                              crash    is killed in the middle of the shards
  unload     writes all, and dies while it ends      no-flag  does not know --lora-adapter
  empty      leaves an empty library
  old-names  writes ndarray-cache.json               bare     knows no compile
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

SUBCOMMANDS = ["compile", "convert_weight", "gen_config", "chat", "serve", "package", "calibrate", "router"]
QUANTIZATIONS = ["q0f16", "q0bf16", "q0f32", "q3f16_0", "q3f16_1", "q4f16_0", "q4f16_1", "q4f32_1", "q4f16_2"]
MODELS = ["llama", "mistral", "gemma", "gemma3_text", "rwkv6", "qwen2"]
TEMPLATES = {"chatml", "gemma_instruction", "gemma3_instruction", "LM", "llama-3"}
BOLD, END = "\x1b[1m", "\x1b[0m"


def does(what: str) -> bool:
    told = os.environ.get("STAND_IN_DOES", "").split(",")
    return what in told or f"{sys.argv[1] if sys.argv[1:] else ''}:{what}" in told


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def log(text: str) -> None:
    sys.stderr.write(f"[2026-11-23 13:10:58] INFO huggingface_loader.py:170: {text}\n")
    sys.stderr.flush()


def bar(done: int, total: int) -> None:
    """As tqdm draws it into a pipe: over the one before, which a log line has to wipe first."""
    filled = "█" * (10 * done // total)
    share = f"{100 * done // total:3d}%"
    sys.stderr.write(f"\r{share}|{filled:<10}| {done}/{total} [00:00<00:05, 14.65it/s]")
    sys.stderr.flush()


def ours(*arguments: str) -> int:
    return subprocess.run(
        [os.environ["STAND_IN_PYTHON"], "-P", "-m", "engine.embedded", *arguments],
        env=os.environ | {"PYTHONPATH": os.environ["STAND_IN_PATH"]},
        stdout=subprocess.DEVNULL,
        check=False,
    ).returncode


def parser_of(module: str, command: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"{module} {command}")
    oldest = module == "mlc_chat"
    if oldest:
        parser.add_argument("--model", required=True, dest="config")
    else:
        parser.add_argument("config", help="A path to config.json, e.g. `--source` of it (required)")
    parser.add_argument("--quantization", choices=QUANTIZATIONS, help="See --device (choices: %(choices)s)")
    parser.add_argument("--model-type", default="auto", choices=["auto", *MODELS])
    parser.add_argument("--output", "-o", type=Path, required=True, help="The --output (required)")
    flags = {
        "convert_weight": ["--device", "--source", "--source-format"],
        "gen_config": [
            *("--context-window-size", "--sliding-window" if oldest else "--sliding-window-size"),
            "--prefill-chunk-size",
        ],
        "compile": ["--device", "--host", "--opt", "--system-lib-prefix"],
    }[command.replace("mlc_chat_", "")]
    if command == "convert_weight" and not oldest and not does("no-flag"):
        flags.append("--lora-adapter")
    if command.startswith("gen") and not oldest:
        flags += ["--attention-sink-size", "--tensor-parallel-shards", "--max-batch-size"]
    if command == "compile" and not oldest:
        flags += ["--overrides", "--debug-dump"]
    for flag in flags:
        parser.add_argument(flag, help=f'What it is for (default: "auto"); not --made-up-{flag[2:]}')
    if command.startswith("gen"):
        parser.add_argument("--conv-template", required=True, choices=list(TEMPLATES))
    return parser


def convert_weight(parsed: argparse.Namespace) -> None:
    parsed.output.mkdir(parents=True, exist_ok=True)
    source = parsed.source or parsed.config
    say(f"{BOLD}Weight conversion with arguments:{END}\n  {BOLD}--source{END}  {source}")
    find_weights(Path(source))
    if does("nothing"):
        return
    total = 8
    for done in range(total + 1):
        bar(done, total)
        if done == total // 2 and does("crash"):
            (parsed.output / "params_shard_0.bin").write_bytes(b"half")
            os.abort()
        if done == total // 2 and does("hang"):
            say("\nready")
            time.sleep(600)
        if done < total:
            sys.stderr.write("\r" + " " * 40 + "\r")
            log(f'[Quantized] Parameter: "{BOLD}model.layers.{done}.q_weight{END}", shape: (64, 8)')
    sys.stderr.write("\n")
    code = ours(
        *("convert_weight", parsed.config, "--quantization", parsed.quantization, *model_type(parsed)),
        *("-o", str(parsed.output)),
    )
    if code:
        sys.exit(code)
    new, old = parsed.output / "tensor-cache.json", parsed.output / "ndarray-cache.json"
    (new if does("old-names") else old).unlink()
    (parsed.output / "tensor-cache-b16.json").write_text((old if does("old-names") else new).read_text())
    if does("late"):
        raise ValueError("Parameter not found in source: model.layers.0.self_attn.qkv_proj.q_weight")
    say(f"\nAll finished, 1 total shards committed, record saved to {parsed.output}")
    log(f"Saved to directory: {BOLD}{parsed.output}{END}")


def model_type(parsed: argparse.Namespace) -> tuple[str, ...]:
    """What our own stages are told: a family that they do not know is a llama in truth."""
    stated = json.loads((Path(parsed.config) / "config.json").read_text())["model_type"]
    return ("--model-type", "llama") if stated == "rwkv6" else ()


def find_weights(folder: Path) -> None:
    """mlc_llm's: a folder without an index gets one, even where it only looks."""
    index = folder / "model.safetensors.index.json"
    if not index.exists():
        names = ["model.norm.weight"]
        index.write_text(json.dumps({"weight_map": dict.fromkeys(names, "model.safetensors")}))
    for name in set(json.loads(index.read_text())["weight_map"].values()):
        assert (folder / name).is_file(), name


def gen_config(parsed: argparse.Namespace) -> None:
    parsed.output.mkdir(parents=True, exist_ok=True)
    for name in ("tokenizer.model", "vocab.json"):
        log(f"\x1b[91mNot found{END} tokenizer config: {parsed.config}/{name}")
    if does("nothing"):
        return
    sliding = getattr(parsed, "sliding_window_size", None) or getattr(parsed, "sliding_window", None)
    sizes = [
        word
        for flag, value in (
            ("--context-window-size", parsed.context_window_size),
            ("--prefill-chunk-size", parsed.prefill_chunk_size),
        )
        if value
        for word in (flag, value)
    ]
    template = {"LM": "none"}.get(parsed.conv_template, parsed.conv_template)
    code = ours(
        *("gen_config", parsed.config, "--quantization", parsed.quantization, "--conv-template", template),
        *(*model_type(parsed), *sizes, "-o", str(parsed.output)),
    )
    if code:
        sys.exit(code)
    path = parsed.output / "mlc-chat-config.json"
    config = json.loads(path.read_text())
    if config["model_type"] == "gemma3_text":  # its window cannot be turned off
        stated = json.loads((Path(parsed.config) / "config.json").read_text())
        config["sliding_window_size"] = stated["sliding_window"]
    if model_type(parsed):
        config["model_type"] = "rwkv6"
    if sliding:
        config["sliding_window_size"] = int(sliding)
    path.write_text(json.dumps(config, indent=2))
    log(f"Dumping configuration file to: {BOLD}{path}{END}")


def compile_(parsed: argparse.Namespace) -> None:
    log(f"Creating model from: {parsed.config}")
    if does("nothing"):
        return
    if does("empty"):
        parsed.output.touch()
        return
    suffix = parsed.output.suffix
    magic = {".so": b"\x7fELF", ".wasm": b"\0asm\1\0\0\0"}.get(suffix, b"!<arch>\n")
    parsed.output.write_bytes(magic + bytes(600))
    log(f"Generated: {BOLD}{parsed.output}{END}")


def main(module: str) -> None:
    names = [name.replace("gen_config", "gen_mlc_chat_config") for name in SUBCOMMANDS]
    choices = names if module == "mlc_chat" else SUBCOMMANDS
    if does("bare"):
        choices = [name for name in choices if name != "compile"]
    general = argparse.ArgumentParser(prog=module)
    general.add_argument("subcommand", choices=choices, help="Subcommand to run. (choices: %(choices)s)")
    command = general.parse_args(sys.argv[1:2]).subcommand
    parsed = parser_of(module, command).parse_args(sys.argv[2:])
    stage = {"convert_weight": convert_weight, "compile": compile_}.get(command, gen_config)
    stage(parsed)
    if does("unload"):
        sys.stdout.flush()
        sys.stderr.write("free(): invalid pointer\n")
        os.abort()
