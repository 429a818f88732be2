"""What is pasted where a path or a model is wanted, as people have it in their clipboard."""

import os
import shutil
from pathlib import Path

import pytest
from textual.widgets import Input
from tui_support import settled, until, wizard_at

from tui.draft import Draft
from tui.pasted import model_of, path_of
from tui.screens.review import ReviewScreen

GOLDEN = Path(__file__).parent / "data" / "golden"


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("/models/a", "/models/a"),
        ("  /models/a b \n", "/models/a b"),
        ("'/models/a b'", "/models/a b"),
        ('"/models/a b"\n', "/models/a b"),
        ("'", "'"),
        ("'a\"", "'a\""),
        ("~/models", "~/models"),
        (r"~nobody/a\ b" if os.sep == "/" else "~nobody/a b", "~nobody/a b"),
        ("x" * 5000, "x" * 5000),
        ("builtin:demo", "builtin:demo"),
        ("", ""),
    ],
)
def test_a_path_loses_what_a_shell_needs(text: str, path: str) -> None:
    assert path_of(text) == path


def test_the_address_of_a_file_is_its_path(tmp_path: Path) -> None:
    place = tmp_path / "a b"
    assert Path(path_of(place.as_uri())) == place
    assert Path(path_of(f"'{place.as_uri()}'")) == place


@pytest.mark.skipif(os.sep != "/", reason="a backslash is a separator there")
def test_a_backslash_escapes_unless_it_is_in_the_name(tmp_path: Path) -> None:
    assert path_of(rf"{tmp_path}/a\ \(b\)") == f"{tmp_path}/a (b)"
    (tmp_path / r"a\b").mkdir()
    assert path_of(rf"{tmp_path}/a\b") == rf"{tmp_path}/a\b"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("google/gemma", ("google/gemma", "")),
        ("https://huggingface.co/google/gemma", ("google/gemma", "")),
        ("http://hf.co/google/gemma/", ("google/gemma", "")),
        ("huggingface.co/google/gemma", ("google/gemma", "")),
        ("https://huggingface.co/google/gemma.git", ("google/gemma", "")),
        ("https://huggingface.co/google/gemma?library=transformers#x", ("google/gemma", "")),
        ("https://huggingface.co/google/gemma/tree/main", ("google/gemma", "")),
        ("https://huggingface.co/google/gemma/tree/v1.0", ("google/gemma", "v1.0")),
        ("https://huggingface.co/google/gemma/tree/refs%2Fpr%2F2", ("google/gemma", "refs/pr/2")),
        ("https://huggingface.co/google/gemma/blob/c0ffee/config.json", ("google/gemma", "c0ffee")),
        ("https://mirror.example/google/gemma", ("google/gemma", "")),
        (
            "https://huggingface.co/datasets/google/fleurs",
            ("https://huggingface.co/datasets/google/fleurs", ""),
        ),
        ("https://huggingface.co/google", ("https://huggingface.co/google", "")),
        ("https://example.org/google/gemma", ("https://example.org/google/gemma", "")),
        ("'./a model'", ("./a model", "")),
    ],
)
def test_the_address_of_a_model_is_its_id(
    text: str, named: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example")
    assert model_of(text) == named


async def test_what_is_pasted_is_read(wizard_home: Path) -> None:
    place = wizard_home / "my model"
    shutil.copytree(GOLDEN / "llama" / "hf", place)
    app = wizard_at("model", Draft())
    async with app.run_test() as pilot:
        await settled(pilot)
        field = app.screen.query_one("#source", Input)
        field.value = f"'{place}'\n"
        await until(pilot, lambda: app.draft.facts is not None, "the facts")
        assert app.draft.plan().source == str(place)
        field.value = "https://huggingface.co/acme/tiny/tree/v2"
        await until(pilot, lambda: app.draft.facts_error is not None, "that the Hub is not there")
        assert (app.draft.asked.source, app.draft.asked.revision) == ("acme/tiny", "v2")
        assert field.value == "acme/tiny"
        assert app.screen.query_one("#revision", Input).value == "v2"
        field.value = "https://example.org/a/b"
        await until(pilot, lambda: "is neither a folder here" in app.screen.why_incomplete(), "the reason")
        assert "model.source" not in app.screen.why_incomplete()


async def test_a_folder_is_pasted_for_the_output(wizard_home: Path) -> None:
    app = wizard_at("review", Draft())
    async with app.run_test() as pilot:
        await settled(pilot)
        assert isinstance(app.screen, ReviewScreen)
        app.screen.query_one("#folder", Input).value = "'some where'"
        await settled(pilot)
        assert app.draft.plan().output == Path("some where")
