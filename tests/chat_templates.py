"""Chat templates of the kinds published models have, written anew, each with a tokenizer of its kind.

`GOLDEN` are the committed model folders, `MODELS` those with a template of their own; `KINDS` names
further templates (data/chat_templates/*.jinja) and the model whose tokenizer each goes with.
"""

import json
import shutil
from pathlib import Path

DATA = Path(__file__).parent / "data"
GOLDEN = {path.name: path / "hf" for path in sorted((DATA / "golden").iterdir())}
MODELS = {
    name: GOLDEN[name]
    for name in (
        *("gemma3_text", "llama", "llama_tied", "llama3_rope"),
        *("gemma", "gpt_neox", "mistral", "phi3", "qwen2"),
    )
}
KINDS = {
    "llama-3.1": "llama_tied",  # a system turn is always there and tells the date
    "qwen2.5": "qwen2",  # a default system message
    "qwen3": "qwen2",  # reasoning of earlier replies is dropped
    "functiongemma": "gemma3_text",  # a developer turn, which may declare functions
    "gemma2": "gemma",  # a system message is refused
    "mistral-0.3": "mistral",  # the system message stands before the last question
    "zephyr": "phi3",
    "vicuna": "llama",  # plain words for roles, a default system text
    "alpaca": "gpt_neox",  # no special token ends a turn
    "chatml-as-text": "gpt_neox",  # a tokenizer without ChatML's tokens
    "deepseek-r1": "phi3",  # system text without a turn, thinking begun for the model
    "preamble": "qwen2",  # a text that stands once, before the first turn
    "rewriting": "phi3",  # messages lose their empty lines
    "single-turn": "phi3",  # one question only
}


def model_folder(target: Path, kind: str) -> Path:
    """A model folder below `target` with the template of `kind` and the tokenizer that goes with it."""
    source = (DATA / "chat_templates" / f"{kind}.jinja").read_text(encoding="utf-8")
    return with_template(target / kind, KINDS[kind], source)


def with_template(folder: Path, model: str, source: object) -> Path:
    """A copy of `model` in `folder` (new), weights apart, with `source` as its chat template."""
    folder.mkdir()
    for name in ("config.json", "generation_config.json", "tokenizer.json"):
        shutil.copyfile(MODELS[model] / name, folder / name)
    stated = json.loads((MODELS[model] / "tokenizer_config.json").read_text(encoding="utf-8"))
    stated["chat_template"] = source
    (folder / "tokenizer_config.json").write_text(json.dumps(stated), encoding="utf-8")
    return folder
