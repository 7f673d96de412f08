"""Shards on disk: resumable, complete, the same from any number of processes, full disks too."""

import os
import platform
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import drawn_pairs
import numpy as np
import pytest

from rsb_pose_core.cli import main
from rsb_pose_core.errors import DataError, RsbPoseError
from rsb_pose_core.synthesis import processes
from rsb_pose_core.synthesis.shards import (
    MAPS,
    FileRenderer,
    ShardFiles,
    make_files,
    write_arrays,
)
from rsb_pose_core.training.pool import SHARD_ARRAYS, PairPool

DATA = Path(__file__).parents[3] / 'shared' / 'data'


def quick_files(folder: Path) -> ShardFiles:
    """Two pairs in two batches, another casting after every second shard."""
    return ShardFiles(
        folder, folder, pairs_per_file=2, pairs_per_batch=1, files_per_casting=2,
        make=drawn_pairs.drawn_crops,
    )  # fmt: skip


@pytest.fixture
def files(tmp_path: Path) -> ShardFiles:
    return quick_files(tmp_path / 'out')


@pytest.fixture(scope='module')
def whole(tmp_path_factory: pytest.TempPathFactory) -> ShardFiles:
    """Four shards with maps, made by two processes."""
    made = replace(quick_files(tmp_path_factory.mktemp('whole')), maps=True)
    assert make_files(made, 4, processes=2) == 4
    return made


def contents(files: ShardFiles) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(files.folder.iterdir())}


def arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as archive:
        return {name: archive[name] for name in archive.files}


def test_two_processes_write_the_bits_that_one_writes(
    files: ShardFiles, whole: ShardFiles
) -> None:
    assert make_files(replace(files, maps=True), 4, processes=1) == 4
    assert list(contents(whole)) == [f'train_000_0000{i}.npz' for i in range(4)]
    for number in range(4):
        assert drawn_pairs.arrays_equal(arrays(files.path(number)), arrays(whole.path(number)))


def test_a_resumed_run_repeats_nothing_and_gives_the_same_shards(
    files: ShardFiles, whole: ShardFiles
) -> None:
    """Another process draws shard 2, without having drawn shard 1 before."""
    files.folder.mkdir()
    for number in (0, 1):
        shutil.copy(whole.path(number), files.folder)
    written = files.path(1).stat().st_mtime_ns
    stale = files.path(2).with_suffix('.part')
    stale.write_bytes(b'half a shard')
    files = replace(files, maps=True)
    assert make_files(files, 3, processes=1) == 1
    assert make_files(files, 3, processes=1) == 0
    assert files.path(1).stat().st_mtime_ns == written
    assert not stale.exists()
    assert drawn_pairs.arrays_equal(arrays(files.path(2)), arrays(whole.path(2)))


def test_shards_differ_from_each_other_by_seed_and_by_split(files: ShardFiles) -> None:
    jobs = (('train', 0, 0), ('train', 1, 0), ('val', 0, 0), ('train', 0, 1))
    firsts = [
        FileRenderer(replace(files, split=split, seed=seed)).arrays(number)['left']
        for split, seed, number in jobs
    ]
    assert len({first.tobytes() for first in firsts}) == 4


@pytest.mark.parametrize(('split', 'seed'), [('train', 500), ('train', -1), ('val', 100)])
def test_seeds_of_another_split_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], split: str, seed: int
) -> None:
    command = ['render', '--data', str(tmp_path), '--split', split, '--seed', str(seed)]
    for what in ('--out', '--sheet'):
        assert main([*command, what, str(tmp_path / 'out')]) == 2
        error = capsys.readouterr().err
        assert f'seed {seed} of {split} pairs: expected 0 to' in error
        assert len(error.splitlines()) == 1


def test_the_trainer_reads_them(whole: ShardFiles) -> None:
    stored = arrays(whole.path(0))
    assert set(stored) == {
        *SHARD_ARRAYS, *MAPS, 'coco_xyz_m', 'coco_uv_left', 'coco_uv_right', 'coco_visibility',
        'box_left', 'box_right',
    }  # fmt: skip
    assert stored['depth_m_left'].shape == (2, 288, 288)
    pool = PairPool(str(whole.folder / 'train_*.npz'), 100)
    assert pool.scan() == 8
    pair = pool.pair(1)
    u, v = np.round(pair['uv_left'][3]).astype(int)
    assert pair['left'][v, u].tolist() == [255, 255, 255]
    fx, _, cx_left, _, cy, _ = pair['calibration']
    x, y, z = pair['xyz_m'].T
    assert np.allclose(pair['uv_left'], np.stack([fx * x / z + cx_left, fx * y / z + cy], 1))


def test_maps_are_not_expected_in_shards_without_them(files: ShardFiles) -> None:
    files.folder.mkdir()
    np.savez(files.path(0), left=np.zeros(1))
    with pytest.raises(DataError, match=r'no array person_mask_left.*choose another --out'):
        make_files(replace(files, maps=True), 1, processes=1)


def test_a_damaged_shard_is_named(files: ShardFiles, whole: ShardFiles) -> None:
    files.folder.mkdir()
    files.path(0).write_bytes(whole.path(0).read_bytes()[:-1000])
    with pytest.raises(DataError, match=r'train_000_00000\.npz: not a whole .npz'):
        make_files(files, 1, processes=1)


# ---- what stops a run ----


def test_a_killed_process_ends_the_run_in_one_sentence(files: ShardFiles) -> None:
    dying = replace(files, make=drawn_pairs.drawn_until_killed)
    with pytest.raises(RsbPoseError, match='a process ended before its time'):
        make_files(dying, 4, processes=1)
    assert list(contents(files)) == ['train_000_00000.npz', 'train_000_00001.npz']


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder with room for 1.2 MB; where none can be mounted, files of half of that."""
    folder, size = tmp_path / 'disk', 1_200_000
    folder.mkdir()
    mount = ['mount', '-t', 'tmpfs', '-o', f'size={size}', 'tmpfs', str(folder)]
    if subprocess.run(mount, capture_output=True).returncode == 0:
        yield folder
        subprocess.run(['umount', str(folder)], check=True)
        return
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, before[1]))
    yield folder
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_one_sentence_and_finished_shards_stay(
    files: ShardFiles, small_disk: Path
) -> None:
    """A shard of one pair takes 0.5 MB: two fit the disk. Larger ones do not."""
    single = replace(files, folder=small_disk, pairs_per_file=1)
    write_arrays(single.path(0), FileRenderer(single).arrays(0))
    first = single.path(0).read_bytes()
    larger = replace(files, folder=small_disk, pairs_per_file=4)
    with pytest.raises(RsbPoseError, match=r'cannot write to .*finished files are kept'):
        make_files(larger, 3, processes=1)
    assert contents(single) == {'train_000_00000.npz': first}


SCRIPT = """
import signal
import sys
from pathlib import Path
import drawn_pairs
from rsb_pose_core.synthesis.shards import ShardFiles, make_files
signal.signal(signal.SIGINT, signal.default_int_handler)  # where the tests' own job ignores it
if __name__ == '__main__':
    out = Path(sys.argv[1])
    make = drawn_pairs.drawn_slowly
    make_files(ShardFiles(out, out, pairs_per_file=2, pairs_per_batch=1, make=make), 40, 1)
"""


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGKILL])
def test_ctrl_c_and_a_kill_leave_only_whole_shards(
    files: ShardFiles, tmp_path: Path, number: signal.Signals
) -> None:
    """Ctrl-C reaches all processes of a terminal; after a kill they notice that nobody asks."""
    (tmp_path / 'script.py').write_text(SCRIPT)
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    run = subprocess.Popen(
        [sys.executable, str(tmp_path / 'script.py'), str(files.folder)],
        env={**os.environ, 'PYTHONPATH': paths}, start_new_session=True,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 200
    while not list(files.folder.glob('*.npz')) and time.monotonic() < deadline:
        time.sleep(0.05)
    if number == signal.SIGINT:
        os.killpg(run.pid, number)
    else:
        run.send_signal(number)
    assert run.wait(60) != 0
    while members(run.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not members(run.pid)
    found = sorted(files.folder.iterdir())
    assert 1 <= len(found) < 40
    assert all(len(arrays(path)['left']) == 2 for path in found)


def members(group: int) -> list[int]:
    """Processes of a process group that still run."""
    found = []
    for stat in Path('/proc').glob('[0-9]*/stat'):
        try:
            fields = stat.read_text().rpartition(')')[2].split()
        except OSError:
            continue
        if int(fields[2]) == group and fields[0] != 'Z':
            found.append(int(stat.parent.name))
    return found


def test_ctrl_c_is_one_line_and_status_130(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr('rsb_pose_core.synthesis.shards.make_files', interrupted)
    assert main(['render', '--out', str(tmp_path), '--data', str(tmp_path)]) == 130
    assert capsys.readouterr().err == 'rsb-pose render: interrupted\n'


def test_a_mistake_in_the_program_is_not_hidden(
    files: ShardFiles, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(RsbPoseError, match='ended before its time'):
        make_files(replace(files, make=drawn_pairs.broken), 1, processes=1)
    assert 'ValueError: a mistake in the program' in capfd.readouterr().err


def test_unwritable_folder_is_one_sentence(files: ShardFiles, tmp_path: Path) -> None:
    (tmp_path / 'file').write_text('')
    with pytest.raises(RsbPoseError, match='cannot write to'):
        make_files(replace(files, folder=tmp_path / 'file' / 'out'), 1, 1)


def test_missing_data_is_one_sentence_and_status_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ['render', '--out', str(tmp_path / 'o'), '--data', str(tmp_path / 'none')]
    assert main([*command, '--pairs', '10']) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith('rsb-pose render: ')


def test_broken_motion_is_named(tmp_path: Path) -> None:
    (tmp_path / 'motion').mkdir()
    (tmp_path / 'motion' / 'cmu_17joints_60hz.npz').write_bytes(b'PK\x03\x04 cut short')
    with pytest.raises(RsbPoseError, match=r'cmu_17joints_60hz\.npz') as caught:
        FileRenderer(ShardFiles(tmp_path / 'out', tmp_path)).arrays(0)
    assert '\n' not in str(caught.value)


# ---- the real renderer ----


@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason='needs the motion data')
def test_rendered_shards_do_not_depend_on_the_processes_that_make_them(tmp_path: Path) -> None:
    """Two shards by one process and, in the other order, by another for each."""
    files = ShardFiles(tmp_path / 'one', DATA, split='val', pairs_per_file=2, pairs_per_batch=1)
    make_files(files, 2, processes=1)
    two = replace(files, folder=tmp_path / 'two')
    make_files(two, 2, processes=2)
    for number in range(2):
        assert drawn_pairs.arrays_equal(arrays(files.path(number)), arrays(two.path(number)))
    assert arrays(files.path(0))['left'].std(axis=(1, 2)).min() > 5


# ---- the same bits on every CPU ----

ARITHMETIC = """
import hashlib, cv2, numpy as np, torch
g = torch.Generator().manual_seed(0)
a, b = torch.randn(300, 700, generator=g), torch.randn(700, 300, generator=g)
x = torch.randn(100_003, generator=g)
values = [a @ b, x.exp().sin(), x.sum(), torch.linalg.inv(a @ a.T)]
n = x.numpy()
values += [np.exp(n) * np.arctan2(n, n[::-1]), n.astype(np.float64) @ n, np.sort(n).std()]
picture = (torch.rand(97, 131, 3, generator=g) * 255).byte().numpy()
values += [cv2.GaussianBlur(picture, (0, 0), 1.3), cv2.resize(picture, (50, 60))]
values += [cv2.imencode('.jpg', picture)[1]]
print(torch.backends.cpu.get_cpu_capability())
print(hashlib.sha256(b''.join(np.asarray(v).tobytes() for v in values)).hexdigest())
"""


def bits(extra: dict[str, str]) -> list[str]:
    variables = {**os.environ, **processes.environment(), **extra}
    script = [sys.executable, '-c', ARITHMETIC]
    run = subprocess.run(script, env=variables, capture_output=True, text=True, check=True)
    assert run.stderr == ''
    return run.stdout.split()


@pytest.mark.skipif(platform.machine() != 'x86_64', reason='of x86-64')
def test_processes_calculate_the_same_on_a_cpu_without_avx512() -> None:
    """glibc's and MKL's view of the CPU is narrowed; the others follow our variables."""
    narrowed = {
        'GLIBC_TUNABLES': 'glibc.cpu.hwcaps=-AVX512F,-AVX512VL,-AVX512DQ,-AVX512BW',
        'MKL_ENABLE_INSTRUCTIONS': 'AVX2',
    }
    wide = bits({})
    assert wide[0] == 'AVX2'
    assert bits(narrowed) == wide
