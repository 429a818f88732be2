"""The main job as a user does it: one command in an empty folder, and the package talks in a browser."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from browser.harness import Browser, Page
from tokenizers import Tokenizer

pytestmark = pytest.mark.browser

ANSWERS = json.loads((Path(__file__).parent / "data" / "demo_answers.json").read_text(encoding="utf-8"))
QUESTIONS = (
    "What are you?",
    "What is the capital of France?",
    "Give me the capital of Japan as JSON.",
    "Count from 2 to 9.",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `mlc-wizard --preset demo.toml` wrote."""
    empty = tmp_path_factory.mktemp("demo")
    command = [sys.executable, "-P", "-m", "tui", "--preset", "demo.toml"]
    done = subprocess.run(command, cwd=empty, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())


@pytest.fixture(scope="module")
def page(browser: Browser, folder: Path) -> Page:
    """The package in WebLLM, with the overrides of the model record that its receipt proposes."""
    receipt = json.loads((folder / "export-receipt.json").read_text(encoding="utf-8"))
    record = receipt["webllm"]["model_record"]
    assert record["required_features"] == []  # q4f32_1 runs on every WebGPU device
    return browser.load(folder, folder / "model-webgpu.wasm", overrides=record["overrides"])


@pytest.mark.parametrize("question", QUESTIONS)
def test_it_answers(page: Page, folder: Path, question: str) -> None:
    """Greedy, to its own stop token, as the trained model answers in float32."""
    reply = page.chat([{"role": "user", "content": question}], temperature=0, max_tokens=64)
    assert reply.text == ANSWERS[question]
    assert reply.finish_reason == "stop"
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert reply.tokens[-1] == tokenizer.token_to_id("<end_of_turn>")


def test_it_remembers_the_first_turn(page: Page) -> None:
    """The second prompt goes on from the KV cache that holds the first."""
    first = [{"role": "user", "content": "What is the capital of France?"}]
    one = page.chat(first, temperature=0, max_tokens=64)
    second = [*first, {"role": "assistant", "content": one.text}]
    second.append({"role": "user", "content": "What is 3 + 4?"})
    two = page.chat(second, temperature=0, max_tokens=64)
    assert two.text == ANSWERS["What is 3 + 4?"]
    # A chat that is kept feeds the new turn alone.
    assert two.usage["prompt_tokens"] < one.usage["prompt_tokens"] + 40
