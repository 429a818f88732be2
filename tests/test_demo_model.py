"""The demo model answers what it was taught, with the weights that a q4f32_1 export stores."""

import dataclasses
import json
from functools import cache
from pathlib import Path

import jinja2
import numpy as np
import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment
from safetensors import safe_open
from tokenizers import Tokenizer

from engine.catalog import QUANTIZATIONS
from engine.embedded import evaluate
from engine.embedded.__main__ import main
from engine.embedded.families.registry import family_of
from engine.embedded.spec import DecoderSpec, Parameter
from engine.model.config import normalise
from engine.model.source import DEMO_MODEL

ANSWERS: dict[str, str] = json.loads(
    (Path(__file__).parent / "data" / "demo_answers.json").read_text(encoding="utf-8")
)
EOS, BOS, END_OF_TURN = 1, 2, 5
MARGIN = 1.0
"""Between the first logit and the second, in logits: a standard deviation is about 3.3."""

Message = dict[str, str]


def read_json(name: str) -> dict:
    return json.loads((DEMO_MODEL / name).read_text(encoding="utf-8"))


@cache
def decoder() -> tuple[DecoderSpec, tuple[Parameter, ...]]:
    config = normalise(read_json("config.json"))
    family = family_of(config)
    spec = family.spec(family.model_config(config))
    return spec, family.parameters(spec)


@cache
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(DEMO_MODEL / "tokenizer.json"))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> evaluate.Weights:
    folder = tmp_path_factory.mktemp("demo")
    assert main(["convert_weight", str(DEMO_MODEL), "--quantization", "q4f32_1", "-o", str(folder)]) == 0
    return evaluate.stored_weights(folder, decoder()[1], QUANTIZATIONS["q4f32_1"])


def render(messages: list[Message], add_generation_prompt: bool) -> str:
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)

    def refuse(message: str) -> None:
        raise jinja2.TemplateError(message)

    environment.globals["raise_exception"] = refuse
    template = environment.from_string(read_json("tokenizer_config.json")["chat_template"])
    return template.render(messages=messages, bos_token="<bos>", add_generation_prompt=add_generation_prompt)


def encode(text: str) -> list[int]:
    return tokenizer().encode(text, add_special_tokens=False).ids


def check_answer(weights: evaluate.Weights, messages: list[Message], answer: str, margin: float) -> None:
    """Greedy decoding says `answer` and ends its turn: each of its tokens is the likeliest after the last."""
    prompt, expected = encode(render(messages, True)), [*encode(answer), END_OF_TURN]
    logits = evaluate.logits(decoder()[0], weights, np.array([*prompt, *expected]))
    steps = logits[len(prompt) - 1 : -1]
    assert steps.argmax(1).tolist() == expected, tokenizer().decode(steps.argmax(1).tolist())
    first, second = np.sort(steps, axis=1)[:, :-3:-1].T
    assert (first - second).min() > margin


@pytest.mark.parametrize("question", ANSWERS)
def test_it_answers_after_4_bit_quantization(weights: evaluate.Weights, question: str) -> None:
    check_answer(weights, [{"role": "user", "content": question}], ANSWERS[question], MARGIN)


def test_it_answers_from_its_source_weights() -> None:
    with safe_open(DEMO_MODEL / "model.safetensors", "np") as tensors:
        source = evaluate.SourceWeights(decoder()[1], tensors.get_tensor)
        for question, answer in ANSWERS.items():
            check_answer(source, [{"role": "user", "content": question}], answer, MARGIN)


def conversation() -> list[Message]:
    turns = [("My name is Ada.", "Nice to meet you, Ada!")]
    turns += [
        (question, ANSWERS[question]) for question in ("Tell me a rhyme about a cat.", "What is 3 + 4?")
    ]
    turns += [("What is the capital of France?", ANSWERS["What is the capital of France?"])]
    return [
        {"role": role, "content": content}
        for turn in turns
        for role, content in zip(("user", "assistant"), turn, strict=True)
    ]


def test_it_remembers_a_name_from_before_every_window(weights: evaluate.Weights) -> None:
    """The last layer looks back further than any window; with a window there too, the name is lost."""
    messages = [*conversation(), {"role": "user", "content": "What is my name?"}]
    check_answer(weights, messages, "Your name is Ada.", MARGIN)
    spec, ids = decoder()[0], encode(render(messages, True) + "Your name is")
    name = encode(" Ada")
    behind = len(ids) - 1 - max(i for i, token in enumerate(ids) if token == name[-1])
    assert behind > max(layer.window or 0 for layer in spec.layers)
    windowed = dataclasses.replace(
        spec, layers=tuple(dataclasses.replace(layer, window=64) for layer in spec.layers)
    )
    assert evaluate.logits(spec, weights, np.array(ids), last_only=True).argmax() == name[0]
    assert evaluate.logits(windowed, weights, np.array(ids), last_only=True).argmax() != name[0]


@pytest.mark.parametrize("system", ["You are a helpful assistant.", "Answer briefly."])
def test_a_system_message_is_folded_into_the_first_turn(weights: evaluate.Weights, system: str) -> None:
    messages = [
        {"role": "system", "content": system},
        {"role": "user", "content": "What is the capital of France?"},
    ]
    assert render(messages, True) == (
        f"<bos><start_of_turn>user\n{system}\n\nWhat is the capital of France?<end_of_turn>\n"
        "<start_of_turn>model\n"
    )
    check_answer(weights, messages, "The capital of France is Paris.", 0.5)


def test_the_tokenizer_gives_back_any_text() -> None:
    """Bytes stand in for what no token covers, and the special tokens are single ids."""
    assert tokenizer().get_vocab_size() == decoder()[0].vocab_size
    for text in ("What is 12 + 7?", "  two  spaces\n\n", "h\u00e9 \u4f60\u597d \U0001f600", "\u2581"):
        expected = text.replace("\u2581", " ")  # as Gemma: the mark of a space reads as one
        assert tokenizer().decode(encode(text), skip_special_tokens=False) == expected
    assert encode("<bos><start_of_turn>user\n")[:2] == [BOS, 4]
    assert len(encode("<end_of_turn>")) == 1
    generation = read_json("generation_config.json")
    assert generation["eos_token_id"] == [EOS, END_OF_TURN]


def test_it_has_sliding_and_full_layers_and_is_small() -> None:
    windows = [layer.window for layer in decoder()[0].layers]
    assert windows == [64, 64, 64, 64, 64, None]
    assert sum(path.stat().st_size for path in DEMO_MODEL.iterdir()) < 2_500_000
