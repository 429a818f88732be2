"""Lines that alarm people and mean nothing: never a cause, and dim wherever a log is shown."""

NOISE = (
    "Set native vector bits to be 128 for `wasm32`",
    "--system-lib-prefix is not specified when building a static library",
    "--system-lib-prefix is specified, but it will not take any effect",
    "Not found device: ",
    "Not found tokenizer config: ",
    "Not found generation_config.json: ",
    "huggingface/tokenizers: The current process just got forked",
)


def is_noise(line: str) -> bool:
    """Whether `line`, without terminal codes, is one of them."""
    return any(text in line for text in NOISE)
