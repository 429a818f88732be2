"""Mistral with a rolling cache: compiled libraries against a cache in numpy that drops tokens one by one."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import exports
import numpy as np
import pytest
from exports import LIBRARY, QUANTIZATIONS, decoder
from rolling_support import LENGTH, SINKS, WINDOW, check, error, expected, ids_of_length, rolling

from engine.artifacts import verify
from engine.embedded import evaluate
from engine.embedded.local import LocalModel
from engine.embedded.spec import RollingCache

TOLERANCE = 1e-4
"""Of the logits' standard deviation."""

SIZES = [(WINDOW, SINKS), (16, 0), (17, 16), (1, 0), (40, 20)]


@pytest.mark.parametrize(("window", "sinks"), SIZES)
def test_the_evaluation_that_verify_uses_rolls_as_the_cache_does(window: int, sinks: int) -> None:
    folder = exports.weights("mistral", "q0f32")
    spec, parameters = decoder(folder)
    spec = replace(
        spec,
        rolling=RollingCache(window=window, sinks=sinks),
        layers=tuple(replace(layer, window=None) for layer in spec.layers),
    )
    stored = evaluate.stored_weights(folder, parameters, QUANTIZATIONS["q0f32"])
    found = evaluate.logits(spec, stored, np.asarray(ids_of_length(LENGTH)))
    assert error(found, expected(window, sinks)) < TOLERANCE


# Lengths of what is fed at once.
FED = {
    "shorter than the window, then far past it": [20, *[1] * 70],
    "as long as the window": [WINDOW, *[1] * 20],
    "longer, in chunks": [WINDOW, WINDOW, WINDOW, *[1] * 18],
    "chunks that end anywhere": [7, 24, 1, 23, 2, 16, 17],
    "token by token": [1] * LENGTH,
    "sinks that come with the chunk that rolls": [2, WINDOW, 3, WINDOW],
}


@pytest.mark.parametrize("fed", FED)
def test_a_compiled_library_is_that_cache_at_every_step(fed: str) -> None:
    folder = rolling("cpu")
    check(LocalModel(folder, folder / LIBRARY["cpu"]).step, FED[fed], expected(), TOLERANCE)


@pytest.mark.parametrize(("window", "sinks"), SIZES[1:])
def test_other_windows_and_sinks(window: int, sinks: int) -> None:
    folder = rolling("cpu", window, sinks)
    check(
        LocalModel(folder, folder / LIBRARY["cpu"]).step, [60, *[1] * 30], expected(window, sinks), TOLERANCE
    )


def test_sinks_window_and_rotation_all_matter() -> None:
    """What a wrong cache would give is far from what is expected here."""
    right = expected()
    for window, sinks in ((WINDOW, 0), (WINDOW, SINKS + 1), (WINDOW + 1, SINKS)):
        assert error(expected(window, sinks), right) > 100 * TOLERANCE
    folder = exports.weights("mistral", "q0f32")
    spec, parameters = decoder(folder)
    stored = evaluate.stored_weights(folder, parameters, QUANTIZATIONS["q0f32"])
    exact = evaluate.logits(spec, stored, np.asarray(ids_of_length(LENGTH)))
    assert error(exact[-1], right[-1]) > 100 * TOLERANCE
    np.testing.assert_allclose(
        exact[:16], right[:16], atol=1e-4
    )  # within every window there is no difference


def test_a_new_conversation_forgets_the_old_one() -> None:
    folder = rolling("cpu")
    model = LocalModel(folder, folder / LIBRARY["cpu"])
    model.step(ids_of_length(80)[40:])
    model.reset()
    check(model.step, [50], expected(), TOLERANCE)


def test_verify_runs_it_past_the_window(tmp_path: Path) -> None:
    """And catches a library that was compiled for other sinks than the configuration beside it says."""
    folder = Path(shutil.copytree(rolling("cpu"), tmp_path / "export"))
    checks = {check.name: check for check in verify(folder)}
    assert all(check.passed for check in checks.values()), checks
    assert "12 tokens" in checks["generation"].found
    path = folder / "mlc-chat-config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["attention_sink_size"] = config["model_config"]["attention_sink_size"] = 0
    path.write_text(json.dumps(config), encoding="utf-8")
    caught = {check.name: check.found for check in verify(folder) if not check.passed}
    assert "differ" in caught["generation"]


def test_a_library_of_mlc_llm_is_run_up_to_its_window() -> None:
    """Beyond it caches roll by rules of their own; a library of ours stands for one of mlc_llm here."""
    checks = {check.name: check for check in verify(rolling("cpu"), made_by="mlc_llm")}
    assert checks["generation"].passed, checks["generation"].found
    assert checks["generation"].found.startswith("12 tokens")
