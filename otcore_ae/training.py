"""What every training run needs around Lightning: threads, quiet, and a count of what it cost."""

from __future__ import annotations

import contextlib
import gc
import logging
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L
import torch

UNKNOWN_COMMIT = "unknown"


class Cost(L.Callback):
    """Counts steps, their processor seconds, the most memory, and how often the run was taken up again.

    It is kept in checkpoints, so a resumed run goes on counting.

    Args:
        caught: see the attribute.
        commit: of the code that runs now.

    Attributes:
        steps: training steps.
        seconds: of processor time in them, all threads together, which other programs do not disturb;
            evaluations and loading are not counted.
        peak_mb: the largest resident set of a process of this run, in MB (1e6 bytes).
        resumed: how many times training was taken up from a checkpoint.
        caught: warnings of this process to count, such as those of solves that did not converge.
        unconverged: how many there were in all.
        commits: those that trained the run, each once, the first one first; "unknown" stands for those of a
            checkpoint that does not name them.
    """

    def __init__(self, caught: list[Any] | None = None, commit: str = UNKNOWN_COMMIT) -> None:
        self.caught = [] if caught is None else caught
        self.commits = [commit]
        self._caught_before = 0
        self.steps = 0
        self.seconds = 0.0
        self.peak_mb = 0.0
        self.resumed = 0
        self._began = 0.0

    def on_train_batch_start(self, *_: Any) -> None:
        self._began = time.process_time()

    def on_train_batch_end(self, *_: Any) -> None:
        self.steps += 1
        self.seconds += time.process_time() - self._began
        self.peak_mb = max(self.peak_mb, peak_memory_mb())

    def state_dict(self) -> dict[str, Any]:
        return {**self.figures(), "commits": self.commits}

    def figures(self) -> dict[str, float]:
        """What was counted, by name."""
        return {
            "steps": self.steps,
            "seconds": self.seconds,
            "peak_mb": self.peak_mb,
            "resumed": self.resumed,
            "unconverged": self.unconverged,
        }

    @property
    def unconverged(self) -> int:
        return self._caught_before + len(self.caught)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.steps, self.resumed = int(state_dict["steps"]), int(state_dict["resumed"]) + 1
        self.seconds, self.peak_mb = state_dict["seconds"], state_dict["peak_mb"]
        self._caught_before = int(state_dict.get("unconverged", 0))
        self.commits = [*dict.fromkeys([*state_dict.get("commits", [UNKNOWN_COMMIT]), *self.commits])]


LAST = "last.ckpt"


def last_checkpoint(folder: Path, name: str = LAST) -> Path | None:
    """The folder's last checkpoint, or another by `name`, to resume from; None where there is none yet.

    Raises:
        ValueError: in one line, where it is damaged or cut short.
    """
    path = folder / name
    if not path.exists():
        return None
    try:
        torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged file makes of the reader
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{path} is damaged or cut short ({reason}); delete it to start anew") from error
    return path


def peak_memory_mb() -> float:
    """The largest resident set of this process so far, in MB (1e6 bytes), since `forget_peak_memory`."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024 / 1e6
    unit = 1 if sys.platform == "darwin" else 1024  # what ru_maxrss counts in
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def forget_peak_memory() -> None:
    """Let `peak_memory_mb` begin anew, where the system can (Linux)."""
    gc.collect()
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch and otcore compute with one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Keep Lightning's notes on hardware, workers and tips, which concern no one here, off the terminal."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric", "lightning")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
