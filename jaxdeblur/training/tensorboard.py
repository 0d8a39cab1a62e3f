"""The TensorBoard file of a run: written by the thread that calls, and given up if it must be."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto import event_pb2

_log = logging.getLogger(__name__)

_FLUSH_SECONDS = 120

# Protocol buffers make their classes when they are imported; type checkers do not see them.
_Event: Any = event_pb2.Event  # pyright: ignore[reportAttributeAccessIssue]
_SessionLog: Any = event_pb2.SessionLog  # pyright: ignore[reportAttributeAccessIssue]


class EventFile:
    """Scalars and pictures for TensorBoard.

    `tensorboardX.SummaryWriter` writes in a thread of its own, whose death on a full disk stops the
    training once its queue is full. They are few; here they are written at once. What cannot be
    written is no reason to end a run, whose measurements are in `metrics.jsonl` as well: it is said
    once, and nothing more is written.

    Args:
      folder: made where missing.
      first_step: the first one; TensorBoard is told to forget later ones, of a killed run. None:
        of a new run.
    """

    def __init__(self, folder: Path, first_step: int | None):
        self._folder = folder
        self._writer: EventsWriter | None = None
        self._flushed = time.monotonic()
        try:
            folder.mkdir(exist_ok=True)
            self._writer = EventsWriter(str(folder / "events"))
        except OSError as error:
            self._give_up(error)
        if first_step is not None:
            start = _SessionLog(status=_SessionLog.START)
            self._write(_Event(step=first_step, file_version="brain.Event:2"))
            self._write(_Event(step=first_step, session_log=start))

    def scalar(self, name: str, value: float, step: int) -> None:
        """Adds a value."""
        self._write(_Event(summary=summary.scalar(name, value), step=step))

    def picture(self, name: str, pixels: np.ndarray, step: int) -> None:
        """Adds a picture, uint8 `[H, W, 3]`."""
        self._write(_Event(summary=summary.image(name, pixels, dataformats="HWC"), step=step))

    def close(self) -> None:
        """Ends the file."""
        writer, self._writer = self._writer, None
        if writer is not None:
            try:
                writer.close()
            except OSError as error:
                self._give_up(error)

    def _write(self, event: Any) -> None:
        if self._writer is None:
            return
        event.wall_time = time.time()
        try:
            self._writer.write_event(event)
            if time.monotonic() - self._flushed > _FLUSH_SECONDS:
                self._writer.flush()
                self._flushed = time.monotonic()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        self._writer = None
        _log.warning(
            "%s cannot be written (%s): TensorBoard shows nothing of the steps from here on; "
            "metrics.jsonl has them",
            self._folder,
            error.strerror or error,
        )
