"""Tasks in several processes whose arithmetic gives the same bits on every x86-64 CPU."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

import cv2
import numpy as np
import torch

from rsb_pose_core.errors import RsbPoseError

CPU_AVX512_SKX = 256  # OpenCV's number for it

T = TypeVar('T')
Work = Callable[[int], T]

# Without these, glibc returns every large tensor to the kernel and maps it again.
ALLOCATOR = {
    'MALLOC_MMAP_THRESHOLD_': '4000000000',
    'MALLOC_TRIM_THRESHOLD_': '16000000000',
    'MALLOC_ARENA_MAX': '2',
}
# Libraries choose kernels by CPU and threads, and kernels sum in different orders: keep to what
# every x86-64 CPU since 2013 has (AVX2 and FMA), in one thread.
ARITHMETIC = {
    'ATEN_CPU_CAPABILITY': 'avx2',
    'MKL_CBWR': 'COMPATIBLE',  # its AVX2 mode holds on Intel's CPUs only
    'ONEDNN_MAX_CPU_ISA': 'AVX2',
    'OPENBLAS_CORETYPE': 'Haswell',
    'OPENCV_IPP': 'disabled',
    'OPENCV_LOG_LEVEL': 'ERROR',  # it warns that IPP is disabled
    'OMP_NUM_THREADS': '1',
    'MKL_NUM_THREADS': '1',
    'OPENBLAS_NUM_THREADS': '1',
}


def environment() -> dict[str, str]:
    """Environment variables of a rendering process."""
    known = np.show_config(mode='dicts')['SIMD Extensions']
    beyond = [
        name
        for name in (*known.get('found', ()), *known.get('not found', ()))
        if name.startswith('AVX512') or name == 'X86_V4'
    ]
    values = {**ALLOCATOR, **ARITHMETIC, 'NPY_DISABLE_CPU_FEATURES': ' '.join(beyond)}
    if cv2.checkHardwareSupport(CPU_AVX512_SKX):  # to disable what is missing makes it complain
        values['OPENCV_CPU_DISABLE'] = 'AVX512-SKX'
    return values


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Let processes started in this block have these variables."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def in_processes(
    prepare: Callable[[], Work[T]], tasks: Sequence[int], processes: int
) -> Iterator[tuple[int, T]]:
    """Yield (task, result) as they come, of work that each process prepares once for itself.

    `prepare` and the results are pickled. An error of a task is raised here, as RsbPoseError or
    OSError where it is one, after all processes have ended; so does Ctrl-C, and so does closing
    the iterator. A task under way then is lost.
    """
    context = multiprocessing.get_context('spawn')
    started: list[BaseProcess] = []
    idle: list[Connection] = []
    busy: list[Connection] = []
    waiting = list(reversed(tasks))
    try:
        with _environment(environment()):
            for _ in range(min(processes, len(tasks))):
                ours, theirs = context.Pipe()
                process = context.Process(target=_work, args=(prepare, theirs), daemon=True)
                process.start()
                theirs.close()
                started.append(process)
                idle.append(ours)
        while waiting or busy:
            while waiting and idle:
                busy.append(idle.pop())
                _ask(busy[-1], waiting.pop())
            for connection in wait(busy):
                assert isinstance(connection, Connection)
                yield _answer(connection)
                busy.remove(connection)
                idle.append(connection)
    finally:
        for worker in started:
            worker.terminate()
        for worker in started:
            worker.join()


def _ask(connection: Connection, task: int) -> None:
    try:
        connection.send(task)
    except OSError as error:
        raise _ended() from error


def _answer(connection: Connection) -> tuple[int, Any]:
    try:
        task, result, error = connection.recv()
    except (EOFError, ConnectionResetError) as broken:
        raise _ended() from broken
    if error is not None:
        raise error
    return task, result


def _ended() -> RsbPoseError:
    return RsbPoseError(
        'a process ended before its time, for want of memory where it left no message '
        'above; run again with fewer --processes: what is finished is kept'
    )


def _work(prepare: Callable[[], Work[T]], connection: Connection) -> None:
    """A process: prepare, then answer each task until nobody asks any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    work: Work[T] | None = None
    try:
        while True:
            task = connection.recv()
            try:
                work = work or prepare()
                connection.send((task, work(task), None))
            except (RsbPoseError, OSError) as error:
                connection.send((task, None, error))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the parent is gone
