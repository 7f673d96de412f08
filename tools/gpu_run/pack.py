"""Put all that a training run on another machine needs into one small folder.

    python tools/gpu_run/pack.py --data DATA --config config/train/lite.yaml --run runs/lite \\
        --photographs PHOTOS/lspet PHOTOS/coco_cc_by --out packed

The package with its baked assets, motion, environment maps, the run's last checkpoint, and as many
photographs as there is room for; run.sh, which trains there; README.md, which says how.
"""

import argparse
import io
import json
import shutil
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import yaml
from tqdm import tqdm

import rsb_pose_core
from rsb_pose_core.datasets.photographs import (
    COCO_JOINTS,
    IMAGES,
    LSPET_JOINTS,
    read_photographs,
)
from rsb_pose_core.errors import DataError, RsbPoseError
from rsb_pose_core.training.carried import CONTENTS
from rsb_pose_core.training.config import load_config

HERE = Path(__file__).resolve().parent
MIB = 2**20
SPARE = 64 * 1024  # for folders and file tables
LABELS = (LSPET_JOINTS, COCO_JOINTS)  # of which each data set has one


def pack(args: argparse.Namespace) -> dict[str, int]:
    """Fill args.out; bytes by what they are for. Raises RsbPoseError where all is too much."""
    out, data = args.out, args.out / 'data'
    if out.exists() and any(out.iterdir()):
        raise DataError(f'{out}: not empty; remove it or give another --out')
    out.mkdir(parents=True, exist_ok=True)
    load_config(args.config)  # complain here, not there
    for name in ('run.sh', 'run_facts.py', 'README.md'):
        shutil.copy(HERE / name, out / name)
    shutil.copy(args.config, out / 'config.yaml')
    if not args.no_package:
        package = Path(rsb_pose_core.__file__).parent
        ignored = shutil.ignore_patterns('__pycache__')
        shutil.copytree(package, out / 'rsb_pose_core', ignore=ignored)
    copy_files(args.data / 'motion', data / 'motion', '*')
    copy_files(args.data / 'wardrobe', data / 'wardrobe', '*.bvh')
    copy_maps(args.data / 'hdri', data / 'hdri', args.map_width)
    if args.run is not None:
        copy_checkpoint(args.run / 'carried', out / 'run' / 'carried', args.weights_only)
    room = args.limit_mib * MIB - sum(sizes(out).values()) - SPARE
    if room < 0:
        raise DataError(
            f'{out}: {args.limit_mib * MIB - room} bytes, expected at most {args.limit_mib} MiB; '
            f'give --weights-only, --no-package or a smaller --map-width'
        )
    weights = [weight(folder) for folder in args.photographs]
    for folder, own in zip(args.photographs, weights, strict=True):
        share = room * own // sum(weights)
        pack_photographs(folder, data / 'photos' / folder.name, share, args.quality)
    found = sizes(out)
    (out / 'packed.yaml').write_text(yaml.safe_dump({'bytes': found}))
    return found


def copy_files(source: Path, target: Path, pattern: str) -> None:
    """Files of a folder and below."""
    for path in sorted(source.rglob(pattern)) if source.is_dir() else ():
        if path.is_file():
            place = target / path.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place)


def copy_maps(source: Path, target: Path, width: int) -> None:
    """Environment maps, at most `width` pixels wide."""
    for path in sorted(source.glob('*.hdr')) if source.is_dir() else ():
        target.mkdir(parents=True, exist_ok=True)
        picture = cv2.imread(str(path), cv2.IMREAD_ANYDEPTH | cv2.IMREAD_COLOR)
        if picture is None or picture.shape[1] <= width:
            shutil.copyfile(path, target / path.name)
            continue
        small = cv2.resize(picture, (width, width // 2), interpolation=cv2.INTER_AREA)
        cv2.imwrite(str(target / path.name), small)


def copy_checkpoint(source: Path, target: Path, weights_only: bool) -> None:
    """The parts of a run, or only those of its averaged weights."""
    contents = source / CONTENTS
    if not contents.is_file():
        raise DataError(f'{source}: no checkpoint is there; give the --out of rsb-pose train')
    target.mkdir(parents=True)
    shutil.copyfile(contents, target / CONTENTS)
    for name, parts in json.loads(contents.read_text())['groups'].items():
        for part in parts if name == 'average' or not weights_only else ():
            shutil.copyfile(source / part['file'], target / part['file'])


def labels_of(source: Path) -> Path:
    """The file of labels beside the photographs."""
    return next(source / name for name in LABELS if (source / name).is_file())


def weight(source: Path) -> int:
    """Bytes of a data set's split `train`, as they are."""
    names = set(read_photographs(source, 'train').names)
    with zipfile.ZipFile(source / IMAGES) as pictures:
        content = sum(pictures.getinfo(name).file_size for name in names)
    return content + labels_of(source).stat().st_size


def pack_photographs(source: Path, target: Path, room: int, quality: int) -> None:
    """As many photographs of the split `train` as there is room for, spread over all of them."""
    names = list(dict.fromkeys(read_photographs(source, 'train').names))
    labels = labels_of(source)
    room -= labels.stat().st_size
    order = np.random.default_rng(0).permutation(len(names))
    kept: dict[str, bytes] = {}
    with zipfile.ZipFile(source / IMAGES) as pictures:
        for number in tqdm(order, desc=str(source), unit='photograph', mininterval=2.0):
            name = names[number]
            content = smaller(pictures.read(name), quality)
            room -= len(content) + 2 * (len(name) + 64)  # twice in the archive's tables
            if room < 0:
                break
            kept[name] = content
    if not kept:
        raise DataError(f'{source}: no room for photographs; leave out --photographs')
    target.mkdir(parents=True)
    with zipfile.ZipFile(target / IMAGES, 'w') as archive:
        for name in sorted(kept):
            archive.writestr(name, kept[name])
    if labels.name == LSPET_JOINTS:
        (target / labels.name).write_bytes(without_others(labels, kept))
    else:
        (target / labels.name).write_text(json.dumps(with_these(labels, kept)))
    read_photographs(target, 'train')  # complain here, not there


def smaller(content: bytes, quality: int) -> bytes:
    """The picture as WebP, where that is smaller; readers go by the content, not by the name."""
    picture = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    _, encoded = cv2.imencode('.webp', picture, [cv2.IMWRITE_WEBP_QUALITY, quality])
    return min(content, encoded.tobytes(), key=len)


def without_others(labels: Path, kept: dict[str, bytes]) -> bytes:
    """joints.npz of LSPET; photographs of the split `train` that stay behind have no joints."""
    with np.load(labels) as archive:
        arrays = {name: archive[name] for name in archive.files}
    joints = arrays['joints'].copy()
    for name in read_photographs(labels.parent, 'train').names:
        if name not in kept:
            joints[int(name[2:7]) - 1, :, 2] = 0
    file = io.BytesIO()
    np.savez_compressed(file, **{**arrays, 'joints': joints})
    return file.getvalue()


def with_these(labels: Path, kept: dict[str, bytes]) -> dict[str, object]:
    """COCO's annotations of the photographs that are kept."""
    content = json.loads(labels.read_text())
    images = [image for image in content['images'] if image['file_name'] in kept]
    numbers = {image['id'] for image in images}
    people = [person for person in content['annotations'] if person['image_id'] in numbers]
    return {**content, 'images': images, 'annotations': people}


def sizes(folder: Path) -> dict[str, int]:
    """Bytes of what lies in a folder, in data/ one by one."""
    found: dict[str, int] = {}
    for path in folder.rglob('*'):
        if path.is_file():
            parts = path.relative_to(folder).parts
            name = '/'.join(parts[:2] if parts[0] == 'data' else parts[:1])
            found[name] = found.get(name, 0) + path.stat().st_size
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Pack, and print what takes how much; 2 and one sentence where that cannot be."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--data', type=Path, required=True, help='folder with motion/, hdri/, ...')
    parser.add_argument('--config', type=Path, required=True, help='of rsb-pose train sce')
    parser.add_argument('--out', type=Path, required=True, help='folder to fill')
    parser.add_argument('--run', type=Path, help='--out of rsb-pose train, to go on from')
    parser.add_argument('--photographs', type=Path, nargs='+', default=[], metavar='FOLDER')
    parser.add_argument('--weights-only', action='store_true', help='of the checkpoint, averaged')
    parser.add_argument('--no-package', action='store_true', help='rsb_pose_core is there already')
    parser.add_argument('--limit-mib', type=int, default=60)
    parser.add_argument('--map-width', type=int, default=512, help='px of environment maps')
    parser.add_argument('--quality', type=int, default=55, help='of photographs, WebP, 1 to 100')
    args = parser.parse_args(argv)
    try:
        found = pack(args)
    except RsbPoseError as error:
        print(f'pack: {error}', file=sys.stderr)
        return 2
    for name, count in sorted(found.items(), key=lambda item: -item[1]):
        print(f'{count / MIB:8.2f} MiB  {name}')
    print(f'{sum(found.values()) / MIB:8.2f} MiB  in {args.out}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
