"""The one frozen description of a job; both front ends build it and the runner runs it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

BackendName = Literal["auto", "embedded", "mlc_llm", "docker"]

BUILTIN_DEMO = "builtin:demo"
"""The source that names the demo model shipped inside the package."""


@dataclass(frozen=True, kw_only=True)
class ExportPlan:
    """A job, as a preset states it; every field is one TOML key of the section of that name.

    `source` is a Hub id, a folder (absolute once a preset is loaded) or "builtin:demo".
    `sliding_window_size` and `attention_sink_size` are None where the model's own choice stands.
    Sizes are in tokens.
    """

    source: str
    revision: str = ""
    model_type: str = "auto"
    conv_template: str = "auto"
    quantization: str
    context_window_size: int | None = None
    prefill_chunk_size: int | None = None
    sliding_window_size: int | None = None
    attention_sink_size: int | None = None
    max_batch_size: int = 1
    tensor_parallel_shards: int = 1
    device: str = "webgpu"
    compile: bool = True
    host: str = "auto"
    opt: str = "O2"
    system_lib_prefix: str = "auto"
    overrides: str = ""
    output: Path = field(default_factory=lambda: Path("dist"))
    backend: BackendName = "auto"
    description: str = ""
