"""What mlc_llm prints, apart: lines for people, and tqdm's bars as progress.

A bar is drawn over and over behind a carriage return, and wiped by every line of the log; `engine.process`
shows what a terminal would show in the end, so the bars have to be read before.
"""

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass

from engine.process import clean

_BAR = re.compile(
    r"(?:^|[\s:])(?P<percent>\d{1,3})%\|[^|]*\| *(?P<done>[\d.]+[kMGT]?)/(?P<total>[\d.]+[kMGT]?) \[[^\]]*\]?"
)
_COUNT = re.compile(r"^\s*(?P<done>\d+)it \[[^\]]*\]?")
_SCALE = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


@dataclass(frozen=True)
class Bar:
    """How far a bar is, in the unit of whoever draws it; `total` is None where it does not know."""

    done: int
    total: int | None


class Splitter:
    """Bytes in, lines and bars out, in order; what is cut in two waits for its rest."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._rest = ""

    def feed(self, data: bytes, *, final: bool = False) -> Iterator[str | Bar]:
        """What `data` completes. A bar is told as it grows, the text that follows it is a line of its own."""
        *lines, self._rest = (self._rest + self._decoder.decode(data, final)).split("\n")
        for line in lines:
            yield from _line(line)
        if final and self._rest:
            yield from _line(self._rest)
            self._rest = ""
            return
        # What a return has drawn over is gone; one at the very end may be half of a line end.
        begin = self._rest.rfind("\r", 0, max(len(self._rest) - 1, 0)) + 1
        drawn, self._rest = self._rest[:begin], self._rest[begin:]
        for part in (*drawn.split("\r"), self._rest):
            if bar := bar_of(part):
                yield bar


def _line(line: str) -> Iterator[str | Bar]:
    """The bars of a line, then what is left to be seen of it; a bar's own last state is no line."""
    *drawn, last = line.rstrip("\r").split("\r")
    for part in drawn:
        if bar := bar_of(part):
            yield bar
    if bar := bar_of(last):
        yield bar
    else:
        yield clean(last)


def bar_of(text: str) -> Bar | None:
    """The bar that `text` draws, if it draws one."""
    shown = clean(text)
    if match := _BAR.search(shown):
        return Bar(_number(match["done"]), _number(match["total"]))
    if match := _COUNT.match(shown):
        return Bar(int(match["done"]), None)
    return None


def _number(text: str) -> int:
    scale = text[-1] if text[-1] in _SCALE else ""
    return round(float(text.removesuffix(scale)) * _SCALE[scale])
