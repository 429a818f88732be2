"""The facts of a model in the words of the screen."""

from engine.model.facts import ModelFacts
from engine.units import megabytes
from tui.describe import Row


def rows(facts: ModelFacts) -> list[Row]:
    """What was read of a model, one fact a row."""
    found: list[Row] = [
        ("architecture", ", ".join(facts.architectures) or facts.model_type or "not said"),
        ("parameters", parameters(facts.parameter_count) + ("" if facts.tensors else ", by config.json")),
    ]
    if (spec := facts.spec) is not None:
        heads = f"{spec.num_attention_heads} heads"
        if spec.num_key_value_heads != spec.num_attention_heads:
            heads += f", {spec.num_key_value_heads} for keys and values"
        found.append(("layers", f"{len(spec.layers)} of width {spec.hidden_size:,}, {heads}"))
        tied = ", embedding and head in one" if spec.tie_word_embeddings else ""
        found.append(("vocabulary", f"{spec.vocab_size:,} tokens{tied}"))
    found.append(("context", f"{facts.max_context:,} tokens at most" if facts.max_context else "not said"))
    if facts.window:
        found.append(("window", f"{facts.window:,} tokens in some layers, which see no further back"))
    found += [
        ("weights", f"{megabytes(facts.source_bytes)} of {facts.dtype.lower() or 'unknown type'}"),
        *([("to fetch", f"{megabytes(facts.download_bytes)}, when the export runs")] if facts.remote else []),
        ("tokenizer", ", ".join(facts.tokenizer_files)),
        ("chat template", "yes" if facts.has_chat_template else "none, as base models have none"),
    ]
    return found


def parameters(count: int) -> str:
    """A number of parameters as people say it, and exactly."""
    for size, unit in ((10**9, "B"), (10**6, "M")):
        if count >= size:
            return f"{count / size:.2f} {unit}  ({count:,})"
    return f"{count:,}"
