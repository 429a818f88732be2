"""What tests of gen_config share: configurations of golden models, edited copies of those, reading."""

import json
import shutil
from pathlib import Path
from typing import Any

from chat_templates import GOLDEN as MODELS

from engine.embedded.gen_config import Generated, generate
from engine.embedded.sizes import Sizes

ASKED = Sizes(context_window_size=256, prefill_chunk_size=64)


def made(name: str, target: Path, sizes: Sizes = ASKED, **options: str) -> Generated:
    options.setdefault("quantization", "q4f16_1")
    return generate(MODELS[name], target, sizes=sizes, **options)


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def edited(tmp_path: Path, name: str, /, *, file: str = "config.json", **changes: Any) -> Path:
    """A copy of a model folder with fields of one of its files changed; None takes a field out."""
    source = tmp_path / "hf"
    if not source.is_dir():
        ignored = shutil.ignore_patterns("*.safetensors")
        shutil.copytree(MODELS[name], source, ignore=ignored, copy_function=shutil.copyfile)
    stated = {key: value for key, value in (read(source / file) | changes).items() if value is not None}
    (source / file).write_text(json.dumps(stated), encoding="utf-8")
    return source
