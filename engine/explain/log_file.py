"""The lines of a log of any size, read as it comes: a file, or standard input."""

import codecs
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from engine import paths
from engine.errors import UsageError
from engine.layout import LOG_NAME
from engine.process import clean

CHUNK = 1 << 20
LONGEST = 1 << 16
"""Characters of a line that are looked at; the rest of it is not kept either."""

_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))


def path_of(source: str) -> Path:
    """The file that `source` names: the folder of an export stands for its mlc-wizard.log."""
    path = paths.expanded(source)
    return path / LOG_NAME if paths.is_folder(path) else path


def read(source: str) -> Iterator[list[str]]:
    """The lines of the file `source`, or of standard input for "-", without terminal codes, in batches.

    UTF-8, or UTF-16 with its mark, as
    PowerShell writes it. Raises UsageError where there is nothing to read, or no text.
    """
    if source == "-":
        yield from _lines(sys.stdin.buffer, "Standard input")
        return
    path = path_of(source)
    try:
        with path.open("rb") as stream:
            yield from _lines(stream, str(path))
    except FileNotFoundError:
        raise UsageError(
            f"There is no file {path}.",
            remedy="Name a log, the folder of an export, or - for standard input: command 2>&1 | mlc-wizard "
            "explain -",
        ) from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}.") from None


def _lines(stream: BinaryIO, name: str) -> Iterator[list[str]]:
    chunk = stream.read(CHUNK)
    encoding = next((encoding for mark, encoding in _MARKS if chunk.startswith(mark)), None)
    if encoding is None and b"\0" in chunk:
        raise UsageError(f"{name} is not text.", remedy="Name the log that a command has written.")
    decoder = codecs.getincrementaldecoder(encoding or "utf-8")(errors="replace")
    rest = ""
    while chunk:
        *lines, rest = (rest + decoder.decode(chunk)).split("\n")
        rest = rest[:LONGEST]
        yield [_shown(line) for line in lines]
        chunk = stream.read(CHUNK)
    if rest := rest + decoder.decode(b"", final=True):
        yield [_shown(rest)]


def _shown(line: str) -> str:
    """`line` as text; a progress bar, which begins anew at each return, as one line of all it showed."""
    return " ".join(clean(part) for part in line[:LONGEST].split("\r") if part)
