"""Finding interpreters with mlc_llm, and looking into them: whatever is wrong there is told, not raised."""

import os
import sys
import threading
from pathlib import Path

import pytest
from official_support import command_line, distribution, environment, mlc_llm, site_packages

from engine.backends.official import checkout as source_checkout
from engine.backends.official import inspection, interpreter
from engine.backends.official.inspection import Inspection, inspect, look
from engine.backends.official.interpreter import Candidate, find
from engine.errors import Cancelled, ToolchainError

posix = pytest.mark.skipif(os.name == "nt", reason="launchers are programs there, not scripts")


@pytest.fixture(autouse=True)
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine on which nothing is to be found; the folder that is its PATH."""
    for variable in ("VIRTUAL_ENV", "CONDA_PREFIX", "MLC_LLM_SOURCE_DIR"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("MLC_WIZARD_MLC_LLM", str(tmp_path / "own"))
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return tmp_path / "bin"


def looked(python: Path, **kwargs: object) -> Inspection:
    return inspect(Candidate(python=python, origin="named"), **kwargs)  # type: ignore[arg-type]


def problem(python: Path, **kwargs: object) -> ToolchainError:
    found = looked(python, **kwargs)
    assert not found.works
    assert isinstance(found.problem, ToolchainError)
    assert "engine.interpreter=PATH" in found.problem.remedy
    return found.problem


class TestFinding:
    def test_nothing_is_found_on_a_bare_machine(self):
        assert find() == ()

    @posix
    def test_a_launcher_on_path_leads_to_its_interpreter(self, tmp_path, bare):
        python = mlc_llm(tmp_path / "env")
        (bare / "mlc_llm").symlink_to(python.parent / "mlc_llm")
        (found,) = find()
        assert (found.python, found.origin, found.launcher) == (python, "PATH", bare / "mlc_llm")
        assert "on PATH" in found.told

    @posix
    @pytest.mark.parametrize(
        "head",
        [
            "#!{python}\n",
            "#! {python} -I\n",
            "#!/bin/sh\n'''exec' \"{python}\" \"$0\" \"$@\"\n' '''\n",
            "#!/bin/sh\n'''exec' {python} \"$0\" \"$@\"\n' '''\n",
        ],
    )
    def test_every_kind_of_shebang(self, tmp_path, head):
        launcher = tmp_path / "mlc_llm"
        launcher.write_text(head.format(python="/opt/x/bin/python3.13") + "pass\n")
        assert interpreter.interpreter_of(launcher) == Path("/opt/x/bin/python3.13")

    @posix
    def test_env_in_a_shebang_is_looked_up_on_path(self, tmp_path, bare):
        (bare / "python3").symlink_to(sys.executable)
        launcher = tmp_path / "mlc_llm"
        launcher.write_text("#!/usr/bin/env python3\n")
        assert interpreter.interpreter_of(launcher) == bare / "python3"

    @posix
    def test_a_shell_script_leads_to_the_python_beside_it_or_nowhere(self, tmp_path):
        launcher = tmp_path / "mlc_llm"
        launcher.write_text('#!/bin/sh\nexec conda run -n mlc mlc_llm "$@"\n')
        assert interpreter.interpreter_of(launcher) is None
        (tmp_path / "python").symlink_to(sys.executable)
        assert interpreter.interpreter_of(launcher) == tmp_path / "python"

    @posix
    def test_the_old_name_comes_after_the_new_one(self, tmp_path, bare):
        old, new = mlc_llm(tmp_path / "old", module="mlc_chat"), mlc_llm(tmp_path / "new")
        (bare / "mlc_chat").symlink_to(old.parent / "mlc_chat")
        (bare / "mlc_llm").symlink_to(new.parent / "mlc_llm")
        assert [c.python for c in find()] == [new, old]

    def test_an_active_environment_counts_where_it_has_the_package(self, tmp_path, monkeypatch):
        python = mlc_llm(tmp_path / "env")
        monkeypatch.setenv("CONDA_PREFIX", str(tmp_path / "env"))
        (found,) = find()
        assert (found.python, found.origin) == (python, "active")
        monkeypatch.setenv("CONDA_PREFIX", str(tmp_path))
        assert find() == ()

    def test_the_environment_that_we_made(self, tmp_path):
        environment(tmp_path / "own")
        (found,) = find()
        assert (found.origin, found.python.parent.parent) == ("own", tmp_path / "own")

    def test_one_environment_is_found_once(self, tmp_path, monkeypatch):
        mlc_llm(tmp_path / "own")
        monkeypatch.setenv("VIRTUAL_ENV", str(tmp_path / "own"))
        assert [c.origin for c in find()] == ["active"]

    def test_a_checkout_goes_with_the_environment_that_has_tvm(self, tmp_path, monkeypatch):
        (tmp_path / "mlc-llm" / "python" / "mlc_llm").mkdir(parents=True)
        python = environment(tmp_path / "env")
        distribution(python, "apache-tvm", "0.26.0", tvm="")
        monkeypatch.setenv("MLC_LLM_SOURCE_DIR", str(tmp_path / "mlc-llm"))
        monkeypatch.setenv("VIRTUAL_ENV", str(tmp_path / "env"))
        first, second = find()
        assert (first.python, first.checkout) == (python, tmp_path / "mlc-llm" / "python")
        assert (second.python, second.origin) == (Path(sys.executable), "checkout")

    @pytest.mark.parametrize("named", ["", "bin/python", "bin/mlc_llm"])
    @posix
    def test_a_plan_names_it_by_executable_environment_or_launcher(self, tmp_path, named):
        python = mlc_llm(tmp_path / "env")
        (found,) = find(str(tmp_path / "env" / named))
        assert (found.python, found.origin) == (python, "named")

    def test_a_path_that_is_not_there_stays_what_was_named(self, tmp_path):
        assert [c.python for c in find(str(tmp_path / "gone" / "python"))] == [tmp_path / "gone" / "python"]


class TestLooking:
    def test_a_working_pair(self, tmp_path):
        found = looked(mlc_llm(tmp_path / "env"))
        assert found.works, found.problem
        assert (found.module, found.version, found.tvm) == ("mlc_llm", "0.20.dev321", "0.24.dev99")
        assert found.python == ".".join(map(str, sys.version_info[:3]))
        assert found.versions["mlc-ai-nightly-cpu"] == "0.20.dev321"
        assert not found.source
        cli = found.cli
        assert cli
        assert not cli.is_legacy
        assert "--lora-adapter" in cli.convert_weight.flags
        assert cli.gen_config.choices["--conv-template"] == (
            *("LM", "chatml", "gemma3_instruction", "gemma_instruction", "llama-3"),
        )
        made_up = {flag for flag in cli.compile.flags if flag.startswith("--made-up")}
        assert not made_up, "flags of descriptions are none of the command"

    def test_the_first_name_of_the_cli_and_its_spellings(self, tmp_path):
        cli = looked(mlc_llm(tmp_path / "env", module="mlc_chat")).cli
        assert cli
        assert cli.is_legacy
        assert cli.gen_config.name == "gen_mlc_chat_config"
        assert cli.gen_config.spelling("--sliding-window-size") == "--sliding-window"
        assert cli.gen_config.spelling("--max-batch-size") is None

    def test_terminal_width_and_colours_change_nothing(self, tmp_path, monkeypatch):
        monkeypatch.setenv("COLUMNS", "30")
        monkeypatch.setenv("FORCE_COLOR", "1")
        cli = looked(mlc_llm(tmp_path / "env")).cli
        assert cli
        assert "--system-lib-prefix" in cli.compile.flags
        assert len(cli.gen_config.choices["--conv-template"]) == 5

    def test_a_folder_in_the_current_one_is_not_taken_for_it(self, tmp_path, monkeypatch):
        python = mlc_llm(tmp_path / "env")
        (tmp_path / "mlc_llm").mkdir()
        (tmp_path / "mlc_llm" / "__init__.py").write_text("raise SystemExit(9)")
        monkeypatch.chdir(tmp_path)
        assert looked(python).works

    def test_our_own_package_is_not_on_its_path(self, tmp_path):
        python = mlc_llm(tmp_path / "env", on_import="import engine")
        assert "No module named 'engine'" in problem(python).what

    def test_a_checkout_is_an_interpreter_like_any_other(self, tmp_path):
        python = environment(tmp_path / "env")
        distribution(python, "apache-tvm", "0.26.0", tvm='__version__ = "0.26.0"\n')
        checkout = tmp_path / "mlc-llm" / "python"
        (checkout / "mlc_llm").mkdir(parents=True)
        (checkout / "mlc_llm" / "__init__.py").write_text("import tvm\n")
        command_line(checkout / "mlc_llm", "mlc_llm")
        found = inspect(Candidate(python=python, origin="checkout", checkout=checkout))
        assert found.works, found.problem
        assert (found.version, found.tvm) == ("checkout", "0.26.0")
        assert found.source == str(checkout / "mlc_llm")
        (checkout / "mlc_llm" / "libinfo.py").write_text('"""Paths."""\n__version__ = "0.1.dev0"\n')
        assert inspect(found.candidate).version == "checkout 0.1.dev0"

    @pytest.mark.parametrize("kept", ["loose", "packed", "detached", "work tree"])
    def test_a_checkout_tells_its_commit(self, tmp_path, kept):
        """Without git, which may not be there: from the files that it keeps."""
        commit = "79d603f085f50500e9509fa01785ffa7ecfaaa93"
        root, repository = tmp_path / "mlc-llm", tmp_path / "mlc-llm" / ".git"
        package = root / "python" / "mlc_llm"
        package.mkdir(parents=True)
        (package / "libinfo.py").write_text('__version__ = "0.1.dev0"\n')
        if kept == "work tree":
            repository = tmp_path / "other" / ".git" / "worktrees" / "mlc-llm"
            (root / ".git").write_text(f"gitdir: {repository}\n")
        repository.mkdir(parents=True)
        (repository / "HEAD").write_text(commit if kept == "detached" else "ref: refs/heads/main\n")
        if kept == "packed":
            (repository / "packed-refs").write_text(f"# pack-refs with: peeled\n{commit} refs/heads/main\n")
        elif kept == "work tree":
            (repository / "commondir").write_text("../..\n")
            refs = tmp_path / "other" / ".git" / "refs" / "heads"
            refs.mkdir(parents=True)
            (refs / "main").write_text(commit + "\n")
        elif kept == "loose":
            (repository / "refs" / "heads").mkdir(parents=True)
            (repository / "refs" / "heads" / "main").write_text(commit + "\n")
        assert source_checkout.version(package) == "checkout 79d603f0"

    def test_a_repository_around_the_checkout_is_not_its_own(self, tmp_path):
        package = tmp_path / "project" / "vendor" / "mlc-llm" / "python" / "mlc_llm"
        package.mkdir(parents=True)
        (tmp_path / "project" / ".git").mkdir()
        (tmp_path / "project" / ".git" / "HEAD").write_text("7" * 40)
        assert source_checkout.version(package) == "checkout"

    def test_a_mixed_environment_is_named(self, tmp_path):
        python = mlc_llm(tmp_path / "env")
        distribution(python, "apache-tvm", "0.27.0.post1")
        found = looked(python)
        assert set(found.mixed) == {"apache-tvm", "mlc-ai-nightly-cpu"}
        assert "is mixed" in problem(python).what
        assert "apache-tvm 0.27.0.post1" in problem(python).what

    def test_tvm_of_mlc_ai_without_mlc_llm_is_no_mlc_llm(self, tmp_path):
        python = environment(tmp_path / "env")
        distribution(python, "mlc-ai-nightly-cpu", "1", tvm="")
        assert problem(python).what == f"{python} has no mlc_llm."

    def test_mlc_llm_without_tvm(self, tmp_path):
        python = environment(tmp_path / "env")
        distribution(python, "mlc-llm-nightly-cpu", "1", mlc_llm="import tvm")
        assert problem(python).what == f"{python} has mlc_llm but no tvm."

    def test_a_pair_that_does_not_belong_together_aborts_in_the_child(self, tmp_path):
        aborting = (
            "import os, sys\n"
            'print("TypeAttr `__ffi_repr__` is already registered for type index 130", file=sys.stderr)\n'
            "os.abort()"
        )
        error = problem(mlc_llm(tmp_path / "env", on_import=aborting))
        assert "`import mlc_llm`" in error.what
        assert "ended with" in error.what
        assert "mlc-llm-nightly-cpu 0.20.dev321" in error.why
        assert "already registered" in error.why

    def test_a_pair_that_raises(self, tmp_path):
        raising = (
            "raise AttributeError(\"module 'tvm.ir._ffi_api' has no attribute 'RegisterOpAttr'\\nmore\")"
        )
        error = problem(mlc_llm(tmp_path / "env", on_import=raising))
        assert "AttributeError: module 'tvm.ir._ffi_api' has no attribute 'RegisterOpAttr'" in error.what
        assert "of one day" in error.why

    def test_it_hangs(self, tmp_path):
        python = mlc_llm(tmp_path / "env", on_import="import time; time.sleep(600)")
        error = problem(python, limit_seconds=5)
        assert error.what == f"`import mlc_llm` of {python} did not end within 5 seconds."

    def test_no_python_at_all(self, tmp_path):
        assert "no Python that runs" in problem(tmp_path / "gone").what
        program = Path("/bin/echo") if os.name == "posix" else Path(os.environ["COMSPEC"])
        assert "no Python that runs" in problem(program).what
        text = tmp_path / "python"
        text.write_text("neither a program nor a script")
        assert "cannot be started" in problem(text).why

    def test_a_folder_is_no_python(self, tmp_path):
        assert "no Python that runs" in problem(find(str(tmp_path))[0].python).what

    def test_the_command_line_of_a_version_nobody_knows(self, tmp_path, monkeypatch):
        monkeypatch.setenv("STAND_IN_DOES", "bare")
        found = looked(mlc_llm(tmp_path / "env"))
        assert not found.works
        assert found.problem
        assert "compile is not among those of mlc_llm" in found.problem.what
        assert "no version of the official compiler" in found.problem.why

    def test_cancelling_ends_it(self, tmp_path):
        python = mlc_llm(tmp_path / "env", on_import="import time; time.sleep(600)")
        cancel = threading.Event()
        cancel.set()
        with pytest.raises(Cancelled):
            looked(python, cancel=cancel)


class TestRemembering:
    def test_a_second_look_runs_nothing_until_packages_change(self, tmp_path):
        python = mlc_llm(tmp_path / "own", on_import=f"open({str(tmp_path / 'tally')!r}, 'a').write('x')")
        first = look()[-1]
        assert first.works
        assert look()[-1] is first
        assert (tmp_path / "tally").read_text() == "x"
        distribution(python, "other", "1")
        os.utime(site_packages(python), (1, 2**31))
        assert look()[-1] is not first
        assert (tmp_path / "tally").read_text() == "xx"

    def test_known_answers_without_running_anything(self, tmp_path):
        mlc_llm(tmp_path / "own")
        (candidate,) = find()
        assert inspection.known(candidate) is None
        look()
        assert inspection.known(candidate) == look()[-1]

    @posix
    def test_the_first_that_works_is_the_last_that_is_looked_into(self, tmp_path, bare):
        broken = mlc_llm(tmp_path / "broken", on_import="raise RuntimeError('no')")
        mlc_llm(tmp_path / "own")
        (bare / "mlc_llm").symlink_to(broken.parent / "mlc_llm")
        assert [found.works for found in look()] == [False, True]
