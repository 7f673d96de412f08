"""Stereo pairs path-traced with Blender's Cycles: people as no batch of the engine draws them.

Geometry, cameras and labels are the engine's own; light transport, materials, the tone curve (AgX)
and the noise are not. Blender's `bpy` runs in processes of its own (`cycles_worker.py`), in any
Python that has bpy and numpy. The seed of Cycles is fixed, yet its bits may differ between CPUs:
`pairs.jsonl` keeps checksums of the scenes' arrays (the same everywhere) and of the pictures.
"""

import hashlib
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from rsb_pose_core.errors import RsbPoseError
from rsb_pose_core.synthesis.sensor import jpeg

WORKER = Path(__file__).with_name('cycles_worker.py')
RECORDS = 'pairs.jsonl'
SAMPLES = 8  # with denoising; 200 pairs take about 40 minutes on two cores of 2020
NOISE = (0.004, 0.012)  # deviation of the sensor's noise at full white, of white
JPEG_QUALITY = (80, 96)
SIDES = ('left', 'right')


def scene_checksum(arrays: Mapping[str, NDArray[Any]]) -> str:
    """SHA-256 over names, types, shapes and bytes of a scene's arrays."""
    total = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        total.update(f'{name} {array.dtype.str} {array.shape}\n'.encode())
        total.update(array.tobytes())
    return total.hexdigest()


def picture_checksum(rgb: NDArray[np.uint8]) -> str:
    """SHA-256 over the shape and the pixels (H, W, 3) of a picture."""
    return hashlib.sha256(f'{rgb.shape}\n'.encode() + rgb.tobytes()).hexdigest()


def picture_path(out: Path, side: str, number: int) -> Path:
    """Where a finished view lies: left_00000.png, right_00000.png."""
    return out / f'{side}_{number:05d}.png'


def finished(out: Path) -> dict[int, str]:
    """Numbers of the pairs that a folder holds completely, with their scenes' checksums."""
    return {
        record['number']: record['scene']
        for record in _records(out / RECORDS)
        if all(picture_path(out, side, record['number']).exists() for side in SIDES)
    }


def render_pairs(
    scenes: Iterable[Mapping[str, NDArray[Any]]], out: Path, samples: int = SAMPLES,
    processes: int = 1, *, numbers: Iterable[int] | None = None, total: int | None = None,
    python: str = sys.executable,
) -> int:  # fmt: skip
    """Path-trace scenes (see cycles_scene) into out/left_00000.png, out/right_00000.png, ...

    Pairs that are there already, of the same scene, are not rendered again. numbers: of the
    scenes, 0, 1, ... by default; total: how many scenes there are, for the progress bar; python:
    an interpreter with bpy. Returns how many pairs were rendered.

    Raises RsbPoseError where bpy is missing, the folder cannot be written or Blender fails;
    finished pairs stay valid.
    """
    require_bpy(python)
    done = _prepare(out)
    threads = max(1, (os.cpu_count() or 1) // processes)
    command = [python, str(WORKER), '--samples', str(samples), '--threads', str(threads)]
    counted = zip(range(sys.maxsize) if numbers is None else numbers, scenes, strict=False)
    rendered = 0
    with tempfile.TemporaryDirectory(prefix='cycles_') as scratch:
        workers = [_Worker(command, Path(scratch) / str(i)) for i in range(processes)]
        idle: queue.Queue[_Worker] = queue.Queue()
        for worker in workers:
            idle.put(worker)
        try:
            with tqdm(total=total, unit='pair', desc='path-trace') as bar:
                for number, arrays in counted:
                    checksum = scene_checksum(arrays)
                    if done.get(number) != checksum:
                        worker = idle.get()
                        worker.finish(bar)
                        worker.start(number, arrays, checksum, out, idle)
                        rendered += 1
                    else:
                        bar.update()
                for worker in workers:
                    worker.finish(bar)
        except OSError as error:
            raise RsbPoseError(
                f'cannot write path-traced pairs to {out} ({error}); free space or choose another '
                'folder and run again: finished pairs are kept'
            ) from error
        finally:
            for worker in workers:
                worker.close()
    return rendered


def require_bpy(python: str = sys.executable) -> None:
    """Raises RsbPoseError unless the interpreter `python` can import Blender."""
    probe = 'import importlib.util as u, sys; sys.exit(not (u.find_spec("bpy")))'
    try:
        missing = subprocess.run([python, '-c', probe], capture_output=True).returncode != 0
    except OSError as error:
        raise RsbPoseError(
            f'{python} cannot be run ({error}); name a Python interpreter that has bpy'
        ) from error
    if missing:
        raise RsbPoseError(
            f"Blender's bpy is not installed for {python}; path tracing needs it: "
            "pip install 'rsb_pose_core[cycles]', or name an interpreter that has bpy and numpy"
        )


def _prepare(out: Path) -> dict[int, str]:
    """Make the folder; the finished pairs in it, the records of which are rewritten clean."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        done = finished(out)
        latest = {record['number']: record for record in _records(out / RECORDS)}
        kept = [json.dumps(latest[number]) + '\n' for number in sorted(done)]
        part = (out / RECORDS).with_suffix('.part')
        part.write_text(''.join(kept))
        part.replace(out / RECORDS)
    except OSError as error:
        raise RsbPoseError(f'cannot write to {out} ({error}); choose another folder') from error
    return done


def _records(file: Path) -> Iterator[dict[str, Any]]:
    if not file.exists():
        return
    for line in file.read_text().splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            continue  # the line during which a run was ended: its pair is rendered again


class _Worker:
    """One Blender process that renders one pair at a time, while the next scene is made."""

    def __init__(self, command: list[str], scratch: Path) -> None:
        scratch.mkdir()
        self._scratch = scratch
        self._log = (scratch / 'log').open('w+')
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True
        )
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None

    def start(
        self, number: int, arrays: Mapping[str, NDArray[Any]], checksum: str, out: Path,
        idle: 'queue.Queue[_Worker]',
    ) -> None:  # fmt: skip
        """Render in the background; the worker joins `idle` when it is free again."""
        np.savez(self._scratch / 'scene.npz', **arrays)  # type: ignore[arg-type]

        def work() -> None:
            try:
                self._render(number, checksum, out)
            except Exception as error:  # raised again by finish(), in the caller's thread
                self._error = error
            idle.put(self)

        self._thread = threading.Thread(target=work, daemon=True)
        self._thread.start()

    def finish(self, bar: 'tqdm[Any]') -> None:
        """Wait for the pair that was started, if any."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
            if self._error is not None:
                raise self._error
            bar.update()

    def close(self) -> None:
        """End the process, whatever it is doing."""
        self._process.kill()
        self._process.wait()
        self._log.close()

    def _render(self, number: int, checksum: str, out: Path) -> None:
        job = {side: str(self._scratch / f'{side}.png') for side in SIDES}
        job['scene'] = str(self._scratch / 'scene.npz')
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(job) + '\n')
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ''
        answer = json.loads(line) if line else {'error': self._last_words()}
        if 'error' in answer:
            raise RsbPoseError(
                f'Blender could not render pair {number} ({answer["error"]}); check the '
                'installation of bpy and run again: finished pairs are kept'
            )
        record = {'number': number, 'scene': checksum, 'seconds': answer['seconds']}
        for view, side in enumerate(SIDES):
            picture = sensed(_read(job[side]), np.random.default_rng([number, view]))
            _write(picture_path(out, side, number), picture)
            record[side] = picture_checksum(picture)
        with (out / RECORDS).open('a') as file:
            file.write(json.dumps(record) + '\n')

    def _last_words(self) -> str:
        self._process.wait()
        self._log.seek(0)
        words = self._log.read().strip().splitlines()
        return words[-1] if words else 'its process ended without a word'


def sensed(rgb: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """A clean picture (H, W, 3) as a camera delivers it: mild noise, then JPEG."""
    level = rng.uniform(*NOISE)
    light = (rgb / 255.0) ** 2.2
    light = light + level * np.sqrt(light + 0.02) * rng.standard_normal(rgb.shape)
    noisy = np.clip(light, 0, 1) ** (1 / 2.2) * 255
    return jpeg(noisy.round().astype(np.uint8), int(rng.integers(*JPEG_QUALITY)))


def _read(file: str) -> NDArray[np.uint8]:
    bgr = cv2.imread(file, cv2.IMREAD_COLOR)
    if bgr is None:
        raise OSError(f'{file} was not written')
    return np.ascontiguousarray(bgr[..., ::-1], np.uint8)


def _write(path: Path, rgb: NDArray[np.uint8]) -> None:
    ok, code = cv2.imencode('.png', rgb[..., ::-1])
    assert ok, 'PNG codec failed'
    part = path.with_suffix('.part')
    part.write_bytes(code.tobytes())
    part.replace(path)
