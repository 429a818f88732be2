"""What keeps the screen answering while threads of this process work.

Two pauses of Python itself are longer than a frame. A full garbage collection visits every object of the
application, up to a tenth of a second's work, and comes when many objects are made, as in a burst of lines.
And a thread that waits for its turn gets it after 5 ms, many times in a frame.
"""

import gc
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

TURN_SECONDS = 0.001
RARELY = 1000
"""Collections of the middle generation before a full one: some millions of new objects."""


_USUAL_THRESHOLDS, _USUAL_TURN = gc.get_threshold(), sys.getswitchinterval()
_lock = threading.Lock()
_blocks: set[object] = set()


@contextmanager
def smooth() -> Iterator[None]:
    """Short turns for threads, and full collections put off, for the block; blocks may overlap."""
    block = object()
    with _lock:
        if not gc.get_freeze_count():
            gc.freeze()  # what is there by now stays to the end: collections need not visit it
        _blocks.add(block)
        gc.set_threshold(*_USUAL_THRESHOLDS[:2], RARELY)
        sys.setswitchinterval(TURN_SECONDS)
    try:
        yield
    finally:
        with _lock:
            _blocks.discard(block)
            if not _blocks:
                gc.set_threshold(*_USUAL_THRESHOLDS)
                sys.setswitchinterval(_USUAL_TURN)
