"""Real ROS 2 Jazzy in .venv, from PyPI and Debian packages: what `make setup` runs.

Needs Python's standard library only. Every step keeps the digest of what it read, and of the
steps before it, under .venv/.setup: a second call does only what changed. The wheels of ROS are
built for x86_64 Linux by ros-python-wheels; what they lack is mended here:

- their exported CMake targets name the include folders of the machine that built them;
- ament_package comes from Debian's python3-ament-package, tf2_msgs from ros-tf2-msgs;
- message_filters, cv_bridge, image_geometry and tf2_ros have no wheel: stand_ins/ has them.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

PIP_ROS = Path(__file__).resolve().parent
REPOSITORY = PIP_ROS.parents[1]
VENV = REPOSITORY / '.venv'
STATE = VENV / '.setup'
TORCH_CHOICE = STATE / 'torch'
BUILD = REPOSITORY / 'build' / 'pip_ros'

AMENT_PACKAGE = Path('/usr/lib/python3/dist-packages/ament_package')
TF2_MSGS = Path('/usr/share/tf2_msgs')
REQUIREMENTS = ('torch', 'core', 'ros', 'dev')
SHARED_FOLDERS = ('config', 'launch', 'weights')
OLDEST_PYTHON, NEWEST_PYTHON = (3, 11), (3, 14)

# Run by every start of .venv's Python, so that a fresh shell needs no environment.
AMENT_PREFIX_PTH = (
    "import os, sys; os.environ['AMENT_PREFIX_PATH'] = os.pathsep.join(dict.fromkeys(filter(None, "
    "[*os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep), sys.prefix])))\n"
)

# By these files colcon knows a prefix of ROS.
LOCAL_SETUP = (
    '# Nothing to set here: the Python of this prefix sets its environment when it starts.\n'
)


class SetupError(Exception):
    """One sentence for the user: what was wrong, what was expected, what to do."""


@dataclass(frozen=True)
class Step:
    """One part of the set-up: what it says, the files and words it depends on, what it does."""

    name: str
    inputs: tuple[Path | str, ...]
    action: Callable[[], None]


def missing_system_packages() -> list[str]:
    """Names of the Debian packages that the set-up needs and this machine lacks."""
    present = {
        'cmake': shutil.which('cmake'),
        'ninja-build': shutil.which('ninja'),
        'g++': shutil.which('g++'),
        'python3-ament-package': AMENT_PACKAGE.is_dir(),
        'ros-tf2-msgs': (TF2_MSGS / 'msg' / 'TFMessage.msg').is_file(),
        'python3-venv': find_spec('ensurepip'),
        'python3-dev': Path(sysconfig.get_path('include'), 'Python.h').is_file(),
    }
    return [package for package, found in present.items() if not found]


def check_machine() -> None:
    """Raise SetupError where ROS has no wheels or a system package is missing."""
    if (platform.system(), platform.machine()) != ('Linux', 'x86_64'):
        raise SetupError(
            f'ROS 2 has wheels for x86_64 Linux only and this is {platform.machine()} '
            f'{platform.system()}: install ROS 2 Jazzy and use colcon build instead.'
        )
    if not OLDEST_PYTHON <= sys.version_info[:2] <= NEWEST_PYTHON:
        raise SetupError(
            f'Python {platform.python_version()} is not between '
            f'{OLDEST_PYTHON[0]}.{OLDEST_PYTHON[1]} and {NEWEST_PYTHON[0]}.{NEWEST_PYTHON[1]}: '
            'name another with make setup PYTHON=python3.12.'
        )
    if missing := missing_system_packages():
        raise SetupError(
            f'{", ".join(missing)} must be installed on this system: '
            f'run `sudo apt-get install {" ".join(missing)}` and try again.'
        )


def environment() -> dict[str, str]:
    """The environment for pip, cmake and the generators: .venv's ROS, nothing of another ROS."""
    libraries = [VENV / 'lib', *sorted(site_packages().glob('ros_*.libs'))]
    return {
        **{name: value for name, value in os.environ.items() if name != 'PYTHONPATH'},
        'PATH': f'{VENV / "bin"}{os.pathsep}{os.environ["PATH"]}',
        'LD_LIBRARY_PATH': os.pathsep.join(map(str, libraries)),
        'AMENT_PREFIX_PATH': str(VENV),
        'CMAKE_PREFIX_PATH': str(VENV),
        '_ROS_WHEELS_BOOTSTRAP_COMPLETE': '1',
    }


def site_packages() -> Path:
    """The folder of .venv that holds the Python packages."""
    return VENV / 'lib' / f'python{sys.version_info[0]}.{sys.version_info[1]}' / 'site-packages'


def call(*command: Path | str) -> None:
    """Run a command, its output kept in .venv/.setup/log; SetupError with its end if it fails."""
    words = [str(word) for word in command]
    result = subprocess.run(
        words, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    STATE.mkdir(parents=True, exist_ok=True)
    with (STATE / 'log').open('a', encoding='utf-8') as log:
        log.write(f'$ {" ".join(words)}\n{result.stdout}\n')
    if result.returncode != 0:
        end = '\n'.join(result.stdout.splitlines()[-20:])
        raise SetupError(f'{words[0]} failed, its whole output is in {STATE / "log"}:\n{end}')


def pip_install(*arguments: Path | str) -> None:
    """Install into .venv with every version held to constraints.txt."""
    python = VENV / 'bin' / 'python'
    call(python, '-m', 'pip', 'install', '--disable-pip-version-check', '--progress-bar', 'off',
         '-c', PIP_ROS / 'constraints.txt', *arguments)  # fmt: skip


def create_venv() -> None:
    """Make .venv; one that stands here already keeps its packages if its Python is the same."""
    pip = VENV / 'bin' / 'pip'  # its first line names the folder for which .venv was made
    usable = (site_packages() / 'pip').is_dir() and f'#!{VENV}/' in pip.read_text(encoding='utf-8')
    call(sys.executable, '-m', 'venv', *(() if usable else ('--clear',)), VENV)


def mend_wheels() -> None:
    """Put this machine's include folders into the wheels' CMake targets; add ament_package."""
    numpy_include = site_packages() / 'numpy' / '_core' / 'include'
    mends = (
        (r'/opt/python/[^/;"]+/include/python3\.\d+t?', sysconfig.get_path('include')),
        (r'/opt/python/[^;"]+?/site-packages/numpy/_core/include', str(numpy_include)),
    )
    for exported in (VENV / 'share').glob('*/cmake/*Export*.cmake'):
        text = exported.read_text(encoding='utf-8')
        mended = text
        for pattern, folder in mends:
            mended = re.sub(pattern, folder, mended)
        if mended != text:
            exported.write_text(mended, encoding='utf-8')
    for shell in ('sh', 'bash'):
        (VENV / f'local_setup.{shell}').write_text(LOCAL_SETUP, encoding='utf-8')
    link(site_packages() / 'ament_package', AMENT_PACKAGE)
    (site_packages() / 'ament_prefix_path.pth').write_text(AMENT_PREFIX_PTH, encoding='utf-8')


def build_interfaces(name: str, source: Path, *options: str) -> None:
    """Generate, build and install a package of messages into .venv."""
    build = BUILD / name
    shutil.rmtree(build, ignore_errors=True)
    call('cmake', '-S', source, '-B', build, '-G', 'Ninja', f'-DCMAKE_INSTALL_PREFIX={VENV}',
         f'-DPython3_EXECUTABLE={VENV / "bin" / "python"}', '-DBUILD_TESTING=OFF',
         '-DCMAKE_BUILD_TYPE=Release', *options)  # fmt: skip
    call('cmake', '--build', build, '--target', 'install')


def build_messages() -> None:
    """Build this repository's messages and join them with the node's modules in its source."""
    joint = site_packages() / 'rsb_pose_ros' / '__init__.py'
    joint.unlink(missing_ok=True)  # cmake would write through the link into the source
    build_interfaces('rsb_pose_ros', REPOSITORY, '-DRSB_POSE_MESSAGES_ONLY=ON')
    link(joint, REPOSITORY / 'rsb_pose_ros' / '__init__.py')
    for folder in SHARED_FOLDERS:
        link(VENV / 'share' / 'rsb_pose_ros' / folder, REPOSITORY / folder)


def link(place: Path, target: Path) -> None:
    """Make place a symbolic link to target, whatever stood there before."""
    if place.is_symlink() or place.is_file():
        place.unlink()
    elif place.is_dir():
        shutil.rmtree(place)
    place.symlink_to(target)


def install_editable() -> None:
    """Install rsb_pose_core with its command, and the stand-ins, both from the source tree."""
    pip_install('--no-deps', '--no-build-isolation', '--config-settings', 'editable_mode=compat',
                '-e', REPOSITORY, '-e', PIP_ROS / 'stand_ins')  # fmt: skip


def steps(torch: str | None) -> list[Step]:
    """The steps in order; torch is a requirement that replaces requirements-torch.txt."""
    files = {kind: PIP_ROS / f'requirements-{kind}.txt' for kind in REQUIREMENTS}
    torch_arguments: tuple[Path | str, ...] = (torch,) if torch else ('-r', files['torch'])
    others = [word for kind in REQUIREMENTS[1:] for word in ('-r', files[kind])]
    constraints = PIP_ROS / 'constraints.txt'
    metadata = (REPOSITORY / 'package.xml', REPOSITORY / 'pyproject.toml', REPOSITORY / 'setup.py')
    return [
        Step('virtual environment', (sys.version, str(VENV)), create_venv),
        Step(
            'torch',
            (constraints, *torch_arguments),
            lambda: pip_install(*torch_arguments),
        ),
        Step('ROS 2 and Python packages', tuple(others), lambda: pip_install(*others)),
        Step('mend of the wheels', (Path(__file__),), mend_wheels),
        Step(
            'tf2_msgs',
            (PIP_ROS / 'tf2_msgs', TF2_MSGS / 'msg', TF2_MSGS / 'srv'),
            lambda: build_interfaces(
                'tf2_msgs', PIP_ROS / 'tf2_msgs', f'-DTF2_MSGS_SHARE={TF2_MSGS}'
            ),
        ),
        Step(
            'messages of rsb_pose_ros',
            (REPOSITORY / 'msg', REPOSITORY / 'CMakeLists.txt', REPOSITORY / 'package.xml'),
            build_messages,
        ),
        Step(
            'rsb_pose_core and stand-ins',
            (*metadata, PIP_ROS / 'stand_ins' / 'pyproject.toml'),
            install_editable,
        ),
    ]


def digest(before: str, inputs: Iterable[Path | str]) -> str:
    """Digest of the steps before, and of the words and the contents of the files in inputs."""
    total = hashlib.sha256(before.encode())
    for item in inputs:
        if isinstance(item, str):
            total.update(item.encode())
            continue
        for path in sorted(item.rglob('*')) if item.is_dir() else [item]:
            if path.is_file():
                total.update(str(path).encode() + path.read_bytes())
    return total.hexdigest()


def run(todo: list[Step]) -> None:
    """Do the steps whose inputs changed since they last succeeded, and say what each took."""
    start = time.monotonic()
    before = ''
    done = 0
    for number, step in enumerate(todo, start=1):
        before = digest(before, (step.name, *step.inputs))
        stamp = STATE / f'{number}'
        if stamp.is_file() and stamp.read_text(encoding='utf-8') == before:
            continue
        stamp.unlink(missing_ok=True)
        print(f'setup {number}/{len(todo)}: {step.name} ...', end='', flush=True)
        step_start = time.monotonic()
        try:
            step.action()
        except SetupError:
            print(' failed', flush=True)
            raise
        stamp.parent.mkdir(exist_ok=True)
        stamp.write_text(before, encoding='utf-8')
        print(f' {time.monotonic() - step_start:.0f} s', flush=True)
        done += 1
    if done:
        print(f'setup: .venv is ready after {time.monotonic() - start:.0f} s')


def chosen_torch() -> str | None:
    """The requirement that an earlier call was given with --torch."""
    return TORCH_CHOICE.read_text(encoding='utf-8') if TORCH_CHOICE.is_file() else None


def set_up(torch: str | None) -> None:
    """Bring .venv up to date, and remember the torch that was asked for."""
    run(steps(torch))
    if torch:
        TORCH_CHOICE.write_text(torch, encoding='utf-8')


@contextmanager
def only_one() -> Iterator[None]:
    """Wait for another set-up of the same repository to end."""
    BUILD.mkdir(parents=True, exist_ok=True)
    with (BUILD / 'lock').open('w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def main() -> int:
    """Set up .venv; 0 when it is ready, 2 with one sentence on stderr when it cannot be."""
    parser = argparse.ArgumentParser(description='Set up real ROS 2 Jazzy in .venv.')
    parser.add_argument('--torch', help='requirement in place of requirements-torch.txt, kept')
    parser.add_argument(
        '--missing', action='store_true', help='print the missing system packages and stop'
    )
    arguments = parser.parse_args()
    if arguments.missing:
        print(' '.join(missing_system_packages()))
        return 0
    try:
        check_machine()
        with only_one():
            set_up(arguments.torch or chosen_torch())
    except SetupError as error:
        print(f'setup: {error}', file=sys.stderr)
        return 2
    return 0


if __name__ == '__main__':
    sys.exit(main())
