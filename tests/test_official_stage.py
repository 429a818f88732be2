"""What mlc_llm prints and writes, taken apart: bars, lines, manifests, configurations, views of a model."""

import json
import shutil
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from runner_support import GEMMA
from safetensors.numpy import save_file

from engine.backends.official import outcome, repair, view
from engine.backends.official.bars import Bar, Splitter, bar_of
from engine.embedded.chat.folder import ModelFolder
from engine.errors import StageError, UsageError
from engine.layout import CONFIG_NAME

# As mlc_llm of July 2026 writes it into a pipe.
CAPTURED = (
    b"\r 13%|\xe2\x96\x88\xe2\x96\x8e        | 11/86 [00:00<00:05, 14.65it/s]"
    b"\r                                               \r"
    b"[2026-11-23 13:10:58] INFO huggingface_loader.py:178: [Not quantized] Parameter: "
    b'"\x1b[1mmodel.norm\x1b[0m"\n'
    b"\r 13%|\xe2\x96\x88\xe2\x96\x8e        | 11/86 [00:00<00:05, 14.65it/s]"
    b"\r100%|\xe2\x96\x88\xe2\x96\x88\xe2\x96\x88| 86/86 [00:00<00:00, 104.49it/s]\n"
    b"\nAll finished, 1 total shards committed\r\n"
)
LOGGED = '[2026-11-23 13:10:58] INFO huggingface_loader.py:178: [Not quantized] Parameter: "model.norm"'


@given(st.lists(st.integers(0, len(CAPTURED)), max_size=6))
def test_lines_and_bars_wherever_the_bytes_are_cut(cuts: list[int]) -> None:
    splitter, found = Splitter(), []
    edges = [0, *sorted(cuts), len(CAPTURED)]
    for start, end in pairwise(edges):
        found += list(splitter.feed(CAPTURED[start:end]))
    found += list(splitter.feed(b"", final=True))
    assert [item for item in found if isinstance(item, str)] == [
        LOGGED,
        "",
        "All finished, 1 total shards committed",
    ]
    bars = [item for item in found if isinstance(item, Bar)]
    assert set(bars) == {Bar(11, 86), Bar(86, 86)}
    assert bars[-1] == Bar(86, 86)


@pytest.mark.parametrize(
    ("text", "bar"),
    [
        ("Fetching:  40%|####      | 2/5 [00:01<00:02,  1.9it/s]", Bar(2, 5)),
        ("model.bin:  50%|#####     | 1.50G/3.00G [00:10<00:10, 150MB/s]", Bar(1_500_000_000, 3_000_000_000)),
        ("17it [00:03, 5.1it/s]", Bar(17, None)),
        ("Quantization: 100% done | 3/4 of it", None),
        ("[2026-11-23] 5 of 86 parameters", None),
        ("", None),
    ],
)
def test_what_is_a_bar(text: str, bar: Bar | None) -> None:
    assert bar_of(text) == bar


@pytest.mark.parametrize(
    ("before", "rolling", "after"),
    [
        ({"context_window_size": 4096, "sliding_window_size": 512}, False, (4096, -1)),
        ({"context_window_size": 4096, "sliding_window_size": 512}, True, (-1, 512)),
        ({"context_window_size": -1, "sliding_window_size": 512}, True, (-1, 512)),
        ({"context_window_size": 4096, "sliding_window_size": -1}, False, (4096, -1)),
        ({"context_window_size": 4096}, False, (4096, -1)),
    ],
)
def test_one_window_is_left(before, rolling, after, tmp_path):
    stated = {"conv_template": {"name": "LM"}, "temperature": 0.6, "repetition_penalty": None, **before}
    (tmp_path / CONFIG_NAME).write_text(json.dumps(stated))
    done = repair.configuration(tmp_path, rolling=rolling, choice=None)
    config = json.loads((tmp_path / CONFIG_NAME).read_text())
    assert (config["context_window_size"], config["sliding_window_size"]) == after
    assert (config["temperature"], config["repetition_penalty"], config["top_p"]) == (0.6, 1.0, 1.0)
    assert "repetition_penalty: 1.0, which was missing" in done
    assert not repair.configuration(tmp_path, rolling=rolling, choice=None), "a second time nothing is left"


def test_a_tokenizer_that_cuts_texts_short_does_not_after_it(tmp_path):
    model, into = tmp_path / "hf", tmp_path / "out"
    for folder in (model, into):
        folder.mkdir()
        shutil.copyfile(GEMMA / "hf" / "tokenizer.json", folder / "tokenizer.json")
    (model / "config.json").write_text("{}")
    assert repair.tokenizer(into, ModelFolder(model)) == []
    whole = json.loads((into / "tokenizer.json").read_text())
    cut = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
    (model / "tokenizer.json").write_text(json.dumps(whole | {"truncation": cut}))
    (into / "tokenizer.json").write_bytes((model / "tokenizer.json").read_bytes())
    (done,) = repair.tokenizer(into, ModelFolder(model))
    assert "cuts texts short" in done
    assert json.loads((into / "tokenizer.json").read_text()) == whole
    (model / "tokenizer.json").unlink()
    assert repair.tokenizer(into, ModelFolder(model)) == []


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"context_window_size": "many", "sliding_window_size": 5}']
)
def test_what_is_no_configuration_is_not_repaired(text, tmp_path):
    (tmp_path / CONFIG_NAME).write_text(text)
    with pytest.raises((ValueError, KeyError, TypeError, AttributeError)):
        repair.configuration(tmp_path, rolling=False, choice=None)


@pytest.mark.parametrize(
    ("manifest", "problem"),
    [
        ("not json", "cannot be read"),
        ('{"records": []}', "no shard at all"),
        ('{"records": [{"dataPath": "params_shard_0.bin", "nbytes": 5}]}', "params_shard_0.bin"),
        ('{"records": [{"dataPath": "params_shard_1.bin", "nbytes": 4}]}', "params_shard_1.bin"),
    ],
)
def test_weights_that_are_not_whole(manifest, problem, tmp_path):
    (tmp_path / "params_shard_0.bin").write_bytes(b"four")
    (tmp_path / "tensor-cache.json").write_text(manifest)
    with pytest.raises(StageError, match=problem):
        outcome.judge("convert_weight", tmp_path, None)


@pytest.mark.parametrize(
    ("code", "is_crash"),
    [(1, False), (2, False), (127, False), (134, True), (0xC0000005, True), (-1073741819, True)],
)
def test_what_is_a_crash(code, is_crash):
    assert outcome.crashed(code) is is_crash


class TestView:
    def test_it_names_the_weights_where_they_are(self, tmp_path):
        view.show(GEMMA / "hf", tmp_path / "view")
        index = json.loads((tmp_path / "view" / view.INDEX).read_text())["weight_map"]
        assert set(index.values()) == {str((GEMMA / "hf" / "model.safetensors").absolute())}
        # As mlc_llm and transformers join them.
        assert all((tmp_path / "view" / name).is_file() for name in index.values())
        assert (tmp_path / "view" / "config.json").is_file()
        view.remove(tmp_path / "view")
        assert not (tmp_path / "view").exists()
        assert not (GEMMA / "hf" / view.INDEX).exists()

    def test_tensors_keep_the_order_of_an_index(self, tmp_path):
        import numpy as np

        names = ["b", "a", "c"]
        for name in names:
            save_file({name: np.zeros(2, np.float32)}, tmp_path / f"{name}.safetensors")
        places = {name: f"{name}.safetensors" for name in names}
        (tmp_path / view.INDEX).write_text(json.dumps({"weight_map": places}))
        view.show(tmp_path, tmp_path / "view")
        shown = json.loads((tmp_path / "view" / view.INDEX).read_text())["weight_map"]
        assert list(shown) == names
        assert [Path(place).name for place in shown.values()] == list(places.values())

    def test_weights_that_are_cut_short_are_told_before_mlc_llm_is_started(self, tmp_path):
        whole = (GEMMA / "hf" / "model.safetensors").read_bytes()
        (tmp_path / "model.safetensors").write_bytes(whole[:-10])
        with pytest.raises(UsageError, match=r"model\.safetensors"):
            view.show(tmp_path, tmp_path / "view")
