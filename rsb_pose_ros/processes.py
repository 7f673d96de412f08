"""Child processes that speak DDS: their environment, their output, and what they leave behind."""

import contextlib
import json
import os
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ament_index_python.packages import PackageNotFoundError, get_package_share_directory

_SHARED_MEMORY = Path('/dev/shm')
_MALLOC_BYTES = 536_870_912


def dds_environment(domain_id: int) -> dict[str, str]:
    """Environment for fast image transport on this machine alone.

    A shared-memory segment that holds several images, and an allocator that keeps image-sized
    blocks: without them pairs are lost and latency doubles.
    """
    return {
        **os.environ,
        'ROS_DOMAIN_ID': str(domain_id),
        'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST',
        'FASTRTPS_DEFAULT_PROFILES_FILE': str(share_file('config/fastdds_shm.xml')),
        'MALLOC_MMAP_THRESHOLD_': str(_MALLOC_BYTES),
        'MALLOC_TRIM_THRESHOLD_': str(_MALLOC_BYTES),
    }


def share_file(name: str) -> Path:
    """A file of this package, of the source tree where there is one, else as installed."""
    path = Path(__file__).resolve().parent.parent / name
    if not path.exists():
        with contextlib.suppress(PackageNotFoundError):
            path = Path(get_package_share_directory('rsb_pose_ros')) / name
    return path


class Child:
    """A child process in a group of its own. JSON lines on its stdout become `status`."""

    def __init__(
        self, name: str, command: Sequence[str], environment: Mapping[str, str], log: Path
    ) -> None:
        self.name = name
        self.log = log
        self.status: dict[str, Any] = {}
        self._shared: set[Path] = set()
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open('w') as stderr:
            self._process = subprocess.Popen(
                command,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                start_new_session=True,
            )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def exit_status(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    def last_words(self) -> str:
        """The last line of its log."""
        lines = [
            line for line in self.log.read_text(errors='replace').splitlines() if line.strip()
        ]
        return lines[-1] if lines else 'it said nothing'

    def wait(self, timeout_s: float) -> int | None:
        """Exit status, None where it still runs after timeout_s."""
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def stop(self, patience_s: float = 10.0) -> None:
        """Interrupt it; kill its group where it does not end. Remove the shared memory it left."""
        self.note_shared_memory()
        for ending in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            if self.exit_status is not None:
                break
            try:
                os.killpg(self._process.pid, ending)
            except ProcessLookupError:
                break
            self.wait(patience_s)
        self._reader.join(timeout=2.0)

    def note_shared_memory(self) -> None:
        """Remember which DDS segments it has mapped, to remove them after it is gone."""
        self._shared |= _mapped_segments(self._process.pid)

    @property
    def shared_memory(self) -> set[Path]:
        return set(self._shared)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            try:
                self.status = json.loads(line)
            except ValueError:
                continue


def remove_shared_memory(segments: set[Path]) -> None:
    """Remove those segments that no process maps any more."""
    in_use: set[Path] = set()
    for entry in Path('/proc').iterdir():
        if entry.name.isdigit():
            in_use |= _mapped_segments(int(entry.name))
    for segment in segments - in_use:
        for path in (segment, segment.with_name(f'sem.{segment.name}_mutex')):
            path.unlink(missing_ok=True)


def _mapped_segments(process_id: int) -> set[Path]:
    prefix = str(_SHARED_MEMORY / 'fastrtps_')
    try:
        lines = Path(f'/proc/{process_id}/maps').read_text().splitlines()
    except OSError:
        return set()
    names = (line[line.index(prefix) :] for line in lines if prefix in line)
    return {Path(name.removesuffix(' (deleted)')) for name in names}
