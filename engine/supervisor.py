"""Between the runner and a stage: when the runner goes away, so does the stage.

`python -I -S supervisor.py GRACE PROGRAM [ARGUMENT ...]` runs PROGRAM and passes its output and exit
code on. Standard input is a pipe that the runner holds and never writes to: when it closes, because
the runner asks for an end or because it died, be it of kill -9, the stage and all that it started
are asked to end and, GRACE seconds later, killed. A stage that ends by itself leaves nothing behind
either. Only the standard library, and quick to start: it runs once a stage.

POSIX: the stage leads a session of its own, and its process group is signalled. Windows: supervisor
and stage share a Job Object that kills its members when the supervisor's handle to it closes.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from types import FrameType

EXIT_NOT_STARTED = 127
"""The program could not be started, as shells say it."""


if sys.platform == "win32":
    import ctypes
    from ctypes import wintypes

    class _BasicLimits(ctypes.Structure):
        _fields_ = (
            ("PerProcessUserTimeLimit", ctypes.c_int64),
            ("PerJobUserTimeLimit", ctypes.c_int64),
            ("LimitFlags", wintypes.DWORD),
            ("MinimumWorkingSetSize", ctypes.c_size_t),
            ("MaximumWorkingSetSize", ctypes.c_size_t),
            ("ActiveProcessLimit", wintypes.DWORD),
            ("Affinity", ctypes.c_size_t),
            ("PriorityClass", wintypes.DWORD),
            ("SchedulingClass", wintypes.DWORD),
        )

    class _ExtendedLimits(ctypes.Structure):
        _fields_ = (
            ("BasicLimitInformation", _BasicLimits),
            ("IoInfo", ctypes.c_uint64 * 6),
            ("ProcessMemoryLimit", ctypes.c_size_t),
            ("JobMemoryLimit", ctypes.c_size_t),
            ("PeakProcessMemoryUsed", ctypes.c_size_t),
            ("PeakJobMemoryUsed", ctypes.c_size_t),
        )

    _EXTENDED_LIMIT_INFORMATION = 9
    _KILL_ON_JOB_CLOSE = 0x2000

    def _contain() -> object:
        """Put this process, hence all it will start, into a job that dies with the returned handle."""
        kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
        kernel32.CreateJobObjectW.restype = wintypes.HANDLE
        kernel32.GetCurrentProcess.restype = wintypes.HANDLE
        job = wintypes.HANDLE(kernel32.CreateJobObjectW(None, None))
        limits = _ExtendedLimits()
        limits.BasicLimitInformation.LimitFlags = _KILL_ON_JOB_CLOSE
        me = wintypes.HANDLE(kernel32.GetCurrentProcess())
        if not (
            job
            and kernel32.SetInformationJobObject(
                job, _EXTENDED_LIMIT_INFORMATION, ctypes.byref(limits), ctypes.sizeof(limits)
            )
            and kernel32.AssignProcessToJobObject(job, me)
        ):
            raise ctypes.WinError(ctypes.get_last_error())
        return job

    def _start(program: list[str]) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            program, stdin=subprocess.DEVNULL, creationflags=subprocess.CREATE_NEW_PROCESS_GROUP
        )

    def _terminate(stage: "subprocess.Popen[bytes]") -> None:
        try:
            os.kill(stage.pid, signal.CTRL_BREAK_EVENT)
        except OSError:  # no console to send it through
            stage.kill()

    def _kill(stage: "subprocess.Popen[bytes]") -> None:
        stage.kill()  # its children go with the job, when this process ends

    def _exit_code(code: int) -> int:
        return code - 2**32 if code >= 2**31 else code

else:

    def _contain() -> object:
        return None

    def _start(program: list[str]) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(program, stdin=subprocess.DEVNULL, start_new_session=True)

    def _signal_group(stage: "subprocess.Popen[bytes]", number: int) -> None:
        # PermissionError is macOS's word for a group of which only zombies are left.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(stage.pid, number)

    def _terminate(stage: "subprocess.Popen[bytes]") -> None:
        _signal_group(stage, signal.SIGTERM)

    def _kill(stage: "subprocess.Popen[bytes]") -> None:
        _signal_group(stage, signal.SIGKILL)

    def _exit_code(code: int) -> int:
        return 128 - code if code < 0 else code


def _not_started(program: list[str], why: str) -> int:
    record = {"what": f"{program[0]} cannot be started: {why}.", "exit_code": 3}
    sys.stderr.write("\x1e" + json.dumps({"error": {"why": "", "remedy": "", **record}}) + "\n")
    return EXIT_NOT_STARTED


def main(arguments: list[str]) -> int:
    """Run `arguments[1:]` with a grace of `arguments[0]` seconds; its exit code, or 128 + its signal."""
    grace, program = float(arguments[0]), arguments[1:]
    job = _contain()
    try:
        stage = _start(program)
    except OSError as error:
        return _not_started(program, error.strerror or str(error))
    ended = threading.Event()

    def end() -> None:
        _terminate(stage)
        if not ended.wait(grace):
            _kill(stage)

    def watch() -> None:
        try:
            while os.read(0, 64):
                pass
        except OSError:
            pass
        end()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        threading.Thread(target=end, daemon=True).start()

    for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGBREAK"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), on_signal)
    try:
        threading.Thread(target=watch, daemon=True).start()
    except RuntimeError as error:  # the system has no more threads: without its watch nothing may run
        _kill(stage)
        stage.wait()
        return _not_started(program, str(error))
    code = stage.wait()
    ended.set()
    _kill(stage)  # what the stage itself left running
    del job
    return _exit_code(code)


if __name__ == "__main__":
    status = main(sys.argv[1:])
    sys.stderr.flush()
    os._exit(status)  # no waiting for the daemon threads; Windows closes the job's handle here
