"""What is wrong right now, one sentence for each part of the node."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

from rsb_pose_core.errors import RsbPoseError

TRANSITION_FAILED = 'cannot '  # begins the sentence of a lifecycle transition that failed


class Level(IntEnum):
    """Levels of diagnostic_msgs/DiagnosticStatus."""

    OK = 0
    WARN = 1
    ERROR = 2


class Part(IntEnum):
    """Parts of the node that can be at fault, in the order of the work."""

    IMAGES = 0
    CALIBRATION = 1
    NETWORK = 2


@dataclass(frozen=True)
class Fault:
    """A sentence with its level. since_s: time.monotonic() when this fault began."""

    level: Level
    sentence: str
    since_s: float


class InputError(RsbPoseError):
    """Input that the node cannot work on. The message is one sentence for the user."""

    def __init__(self, part: Part, sentence: str, level: Level = Level.ERROR) -> None:
        super().__init__(sentence)
        self.part = part
        self.level = level


class MissingCameraInfoError(InputError):
    """No CameraInfo has come yet. The inputs report it, since they know the topics."""


class FaultBook:
    """Keeps the present fault of each part and logs a fault once, when it comes or changes.

    A fault that comes and goes is logged at most once in `repeat_s`. Safe from any thread.
    """

    def __init__(self, log: Callable[[Level, str], None], repeat_s: float = 10.0) -> None:
        self._log = log
        self._repeat_s = repeat_s
        self._faults: dict[Part, Fault] = {}
        self._last_logged_s: dict[str, float] = {}
        self._last: Fault | None = None

    def report(self, part: Part, level: Level, sentence: str) -> None:
        """Note that `part` is at fault."""
        present = self._faults.get(part)
        if present is not None and present.sentence == sentence and present.level == level:
            return
        fault = Fault(level, sentence, time.monotonic())
        self._faults[part] = fault
        self._last = fault
        self._log_seldom(level, sentence)

    def clear(self, part: Part, sentence: str = '') -> None:
        """Note that `part` is well again; `sentence`, if any, says so on the log."""
        if self._faults.pop(part, None) is not None and sentence:
            self._log_seldom(Level.OK, sentence)

    def get(self, part: Part) -> Fault | None:
        return self._faults.get(part)

    @property
    def last(self) -> Fault | None:
        """The latest fault, whether it is over or not."""
        return self._last

    def _log_seldom(self, level: Level, sentence: str) -> None:
        now_s = time.monotonic()
        logged_s = self._last_logged_s.get(sentence)
        if logged_s is None or now_s - logged_s >= self._repeat_s:
            recent = self._last_logged_s.items()
            self._last_logged_s = {s: at for s, at in recent if now_s - at < self._repeat_s}
            self._last_logged_s[sentence] = now_s
            self._log(level, sentence)
