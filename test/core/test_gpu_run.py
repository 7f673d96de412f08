"""What a run on another machine carries: below its limit, readable there; errors in one line."""

import importlib.util
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
from test_training import write_config

from rsb_pose_core.datasets.photographs import read_photographs

FOLDER = Path(__file__).parents[2] / 'tools' / 'gpu_run'
LIMIT_MIB = 10  # the package with its assets is 9


@pytest.fixture(scope='module')
def packing() -> ModuleType:
    spec = importlib.util.spec_from_file_location('pack', FOLDER / 'pack.py')
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    """Made-up data, photographs in LSPET's form and a checkpoint of three groups."""
    rng = np.random.default_rng(0)
    for name in ('motion/walk.npz', 'wardrobe/poses/sit.bvh', 'wardrobe/shirt.obj'):
        path = tmp_path / 'data' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(1000))
    (tmp_path / 'data' / 'hdri').mkdir()
    panorama = rng.random((64, 128, 3), np.float32)
    cv2.imwrite(str(tmp_path / 'data' / 'hdri' / 'wood.hdr'), panorama)
    photos = tmp_path / 'lspet'
    photos.mkdir()
    count = 760  # of which the last 700 are of val and test
    joints = np.ones((count, 14, 3))
    joints[:, :, :2] = rng.uniform(10, 240, (count, 14, 2))
    np.savez(photos / 'joints.npz', joints=joints)
    noise = rng.integers(0, 256, (256, 256, 3), np.uint8)
    with zipfile.ZipFile(photos / 'images.zip', 'w') as archive:
        for number in range(60):
            _, encoded = cv2.imencode(
                '.jpg', np.roll(noise, number), [cv2.IMWRITE_JPEG_QUALITY, 95]
            )
            archive.writestr(f'im{number + 1:05d}.jpg', encoded.tobytes())
    carried = tmp_path / 'run' / 'carried'
    carried.mkdir(parents=True)
    groups = {}
    for name in ('average', 'model', 'optimizer'):
        groups[name] = [{'file': f'{name}.part'}]
        (carried / f'{name}.part').write_bytes(bytes(1000))
    (carried / 'carried.json').write_text(json.dumps({'groups': groups}))
    config = write_config(tmp_path / 'c.yaml')
    return [
        '--data', str(tmp_path / 'data'), '--config', str(config), '--run', str(tmp_path / 'run'),
        '--photographs', str(photos), '--out', str(tmp_path / 'packed'),
        '--limit-mib', str(LIMIT_MIB), '--map-width', '64',
    ]  # fmt: skip


def test_what_is_packed_fits_and_can_be_read(
    packing: ModuleType, command: list[str], tmp_path: Path
) -> None:
    assert packing.main([*command, '--weights-only']) == 0
    out = tmp_path / 'packed'
    total = sum(path.stat().st_size for path in out.rglob('*') if path.is_file())
    assert 0.9 * LIMIT_MIB * 2**20 < total <= LIMIT_MIB * 2**20
    people, all_of_them = read_photographs(out / 'data/photos/lspet'), tmp_path / 'lspet'
    originals = read_photographs(all_of_them)
    assert 10 < len(people) < len(originals) == 60
    for name, uv in zip(people.names, people.uv, strict=True):
        assert np.array_equal(uv, originals.uv[originals.names.index(name)], equal_nan=True)
    assert people[0].image.shape == (256, 256, 3)
    panorama = cv2.imread(str(out / 'data/hdri/wood.hdr'), cv2.IMREAD_ANYDEPTH)
    assert panorama.shape[:2] == (32, 64)
    assert [path.name for path in sorted((out / 'run/carried').iterdir())] == [
        'average.part', 'carried.json',
    ]  # fmt: skip
    assert (out / 'data/wardrobe/poses/sit.bvh').is_file()
    assert not (out / 'data/wardrobe/shirt.obj').exists()
    assert (out / 'rsb_pose_core/synthesis/assets/body.npz').is_file()


def test_what_cannot_be_packed_is_one_sentence(
    packing: ModuleType, command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert packing.main([*command, '--limit-mib', '1']) == 2
    assert 'expected at most 1 MiB; give --weights-only, --no-package' in capsys.readouterr().err
    assert packing.main(command) == 2
    assert 'not empty; remove it or give another --out' in capsys.readouterr().err
    other = [*command, '--out', str(tmp_path / 'other'), '--no-package', '--run', str(tmp_path)]
    assert packing.main(other) == 2
    assert 'no checkpoint is there' in capsys.readouterr().err


def test_the_rate_is_that_between_two_checkpoints(tmp_path: Path) -> None:
    for name, step, pairs, seconds in (('a.json', 10, 160, 20.0), ('b.json', 40, 1360, 80.0)):
        counters = {'step': step, 'pairs_seen': pairs, 'seconds': seconds}
        (tmp_path / name).write_text(json.dumps({'facts': {'counters': counters}}))
    facts = [sys.executable, str(FOLDER / 'run_facts.py')]
    paths = [str(tmp_path / name) for name in ('a.json', 'b.json')]
    said = subprocess.run([*facts, 'rate', *paths], capture_output=True, text=True, check=True)
    assert said.stdout == (
        '30 steps, 1200 pairs in 1.0 minutes of training: 20.0 pairs/s; step 40 in all\n'
    )
    assert subprocess.run([*facts, 'modules'], check=False).returncode == 0
