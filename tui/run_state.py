"""What is known of a run, built from its events; the run and result screens draw it."""

from collections import deque
from dataclasses import dataclass, field
from typing import Literal

from engine.errors import Cancelled, WizardError
from engine.events import Event, Progress, RunEnded, RunStarted, StageEnded, StageName, StageStarted
from engine.plan import ExportPlan

Phase = Literal["idle", "running", "stopping", "done", "failed", "cancelled"]
StageState = Literal["waiting", "running", "done", "skipped", "failed", "cancelled"]

STAGES: dict[StageName, str] = {
    "fetch": "fetch model",
    "convert_weight": "convert weights",
    "gen_config": "generate config",
    "compile": "compile library",
    "verify": "verify export",
}
"""What the stages are called on screen."""

RATE_SECONDS = 5.0
"""Throughput is measured over this much of the past."""
_RATE_MINIMUM = 0.25


class Rate:
    """How fast a counter grows now: over the last `RATE_SECONDS`, in its unit per second."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def add(self, now: float, done: int) -> None:
        """The counter stood at `done` at the time `now`, in seconds."""
        if self._seen and done < self._seen[-1][1]:
            self._seen.clear()
        self._seen.append((now, done))
        while len(self._seen) > 2 and now - self._seen[0][0] > RATE_SECONDS:
            self._seen.popleft()

    @property
    def per_second(self) -> float | None:
        """None until enough was seen to say anything."""
        if len(self._seen) < 2:
            return None
        (t0, d0), (t1, d1) = self._seen[0], self._seen[-1]
        return (d1 - d0) / (t1 - t0) if t1 - t0 >= _RATE_MINIMUM else None


@dataclass(kw_only=True)
class Stage:
    """One stage of a run; times are in seconds, `began` on the clock that `RunState.feed` is given."""

    name: StageName
    state: StageState = "waiting"
    began: float = 0.0
    seconds: float | None = None
    progress: Progress | None = None
    rate: Rate = field(default_factory=Rate)
    ended: StageEnded | None = None

    @property
    def label(self) -> str:
        """Its name on screen."""
        return STAGES[self.name]

    def elapsed(self, now: float) -> float | None:
        """How long it has taken so far, or took; None for one that has not begun."""
        if self.state == "running":
            return now - self.began
        return self.seconds

    def remaining(self) -> float | None:
        """Seconds left at the present throughput; None where that would be a guess.

        Only bytes are alike enough for it: the steps of a compilation take a second or a minute.
        """
        progress, rate = self.progress, self.rate.per_second
        if progress is None or progress.unit != "bytes" or not progress.total or not rate:
            return None
        return (progress.total - progress.done) / rate

    def feed(self, event: StageStarted | Progress | StageEnded, now: float) -> None:
        """Take in an event of this stage."""
        match event:
            case StageStarted():
                if self.state != "running":  # a stage may have several commands
                    self.state, self.began = "running", now
            case Progress():
                if self.progress is None or self.progress.unit != event.unit:
                    self.rate = Rate()
                self.progress = event
                self.rate.add(now, event.done)
            case StageEnded():
                self.state, self.seconds, self.ended = event.outcome, event.seconds, event


@dataclass(kw_only=True)
class RunState:
    """A run from its first event to its last. `refusal` is why it could not begin or go on at all."""

    plan: ExportPlan | None = None
    phase: Phase = "idle"
    began: float = 0.0
    started: RunStarted | None = None
    stages: dict[StageName, Stage] = field(default_factory=dict)
    ended: RunEnded | None = None
    refusal: WizardError | None = None
    _seconds: float = 0.0

    @property
    def active(self) -> bool:
        """Whether something is still going on."""
        return self.phase in ("running", "stopping")

    def begin(self, plan: ExportPlan, now: float) -> None:
        """A new run of `plan` begins at the time `now`, in seconds."""
        self.plan, self.phase, self.began = plan, "running", now
        self.started = self.ended = self.refusal = None
        self.stages = {}

    def stop(self) -> None:
        """The run was asked to stop."""
        if self.phase == "running":
            self.phase = "stopping"

    def feed(self, event: Event, now: float) -> None:
        """Take in `event`, seen at the time `now`, in seconds."""
        match event:
            case RunStarted():
                self.started = event
                self.stages = {name: Stage(name=name) for name in event.stages}
            case StageStarted() | Progress() | StageEnded():
                self.stages.setdefault(event.stage, Stage(name=event.stage)).feed(event, now)
            case RunEnded():
                self.ended = event
                self.phase = event.outcome if event.outcome != "skipped" else "done"

    def refuse(self, error: WizardError, now: float) -> None:
        """The run came to no RunEnded: the plan, the model or the machine does not allow it."""
        self.refusal, self._seconds = error, now - self.began
        for stage in self.stages.values():
            if stage.state == "running":
                stage.state, stage.seconds = "failed", now - stage.began
        self.phase = "cancelled" if isinstance(error, Cancelled) else "failed"

    @property
    def running(self) -> Stage | None:
        """The stage at work."""
        return next((stage for stage in self.stages.values() if stage.state == "running"), None)

    @property
    def failed(self) -> Stage | None:
        """The stage that failed or was stopped."""
        return next((s for s in self.stages.values() if s.state in ("failed", "cancelled")), None)

    @property
    def failure(self) -> WizardError | None:
        """What went wrong, in the three parts that every failure has."""
        if self.refusal is not None:
            return self.refusal
        stage = self.failed
        if stage is None or stage.ended is None:
            return None
        return WizardError(
            stage.ended.what, why=stage.ended.why, remedy=stage.ended.remedy, fix=stage.ended.fix
        )

    def elapsed(self, now: float) -> float:
        """Seconds since the run began, or that it took."""
        if self.ended is not None:
            return self.ended.seconds
        return now - self.began if self.active else self._seconds
