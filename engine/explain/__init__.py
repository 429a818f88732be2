"""Failures that users meet with MLC and its tools, known by their texts: what, why, what to do.

`Matcher` finds them in lines, while a stage runs (`engine.runner`) and in a log (`mlc-wizard explain`).
A failure is a row of the tables in `toolchains`, `containers`, `models`, `devices` and `browsers`.
"""

from engine.explain.known import Known
from engine.explain.match import KNOWN, Finding, Matcher
from engine.explain.noise import is_noise

__all__ = ["KNOWN", "Finding", "Known", "Matcher", "is_noise"]
