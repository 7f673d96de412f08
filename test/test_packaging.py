"""The package as it is built and installed: versions, pins, messages, and what make setup does."""

import ast
import configparser
import importlib.util
import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from importlib.metadata import distributions, version
from pathlib import Path

import pytest
from ament_index_python.packages import get_package_share_directory
from packaging.version import Version
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

import rsb_pose_ros.msg

REPOSITORY = Path(__file__).resolve().parents[1]
PIP_ROS = REPOSITORY / 'tools' / 'pip_ros'
MESSAGES = sorted(path.stem for path in (REPOSITORY / 'msg').glob('*.msg'))
# As `ros2 topic info --verbose /tf` prints it on a Jazzy robot.
UPSTREAM_TFMESSAGE_HASH = 'RIHS01_e369d0f05a23ae52508854b66f6aa0437f3449d652e8cbf22d5abe85d020f087'
NO_WHEEL = ('cv_bridge', 'image_geometry', 'message_filters', 'tf2_ros')


def package_xml():
    return ElementTree.parse(REPOSITORY / 'package.xml').getroot()


def pins(path):
    """Map the normalised name in each line of a requirements file to its version."""
    lines = [line.partition('#')[0].strip() for line in path.read_text().splitlines()]
    found = [re.fullmatch(r'([\w.-]+)(?:\[\w+\])?==([\w.+]+)', line) for line in lines if line]
    assert all(found), f'{path.name} has a line that does not pin one version with =='
    return {normalised(match[1]): match[2] for match in found}


def normalised(name):
    return re.sub(r'[-_.]+', '-', name).lower()


def built_hash(package, message):
    description = Path(get_package_share_directory(package)) / 'msg' / f'{message}.json'
    hashes = json.loads(description.read_text())['type_hashes']
    return {entry['type_name']: entry['hash_string'] for entry in hashes}[
        f'{package}/msg/{message}'
    ]


@pytest.fixture(scope='module')
def setup_venv():
    spec = importlib.util.spec_from_file_location('setup_venv', PIP_ROS / 'setup_venv.py')
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_version_of_the_installed_distribution_is_that_of_package_xml():
    assert version('rsb_pose_core') == package_xml().findtext('version')


def test_package_xml_declares_the_ros_packages_that_have_no_wheel():
    declared = {element.text for element in package_xml().findall('exec_depend')}
    packages = {'tf2_ros': 'tf2_ros_py'}  # its Python module has a package of its own
    assert declared.issuperset(packages.get(name, name) for name in NO_WHEEL)


@pytest.mark.parametrize('name', NO_WHEEL)
def test_stand_in_comes_from_tools(name):
    origin = importlib.util.find_spec(name).origin
    assert Path(origin).is_relative_to(PIP_ROS / 'stand_ins')


@pytest.mark.parametrize('kind', ['core', 'dev', 'ros'])
def test_every_requirement_is_a_constraint_of_the_same_version(kind):
    constraints = pins(PIP_ROS / 'constraints.txt')
    for name, pinned in pins(PIP_ROS / f'requirements-{kind}.txt').items():
        assert constraints[name] == pinned, name


def test_torch_is_pinned():
    assert list(pins(PIP_ROS / 'requirements-torch.txt')) == ['torch']


def test_everything_that_pip_installed_is_constrained():
    constraints = pins(PIP_ROS / 'constraints.txt')
    # torch chooses its own libraries; the other names are ours, or pip itself.
    left_out = re.compile('pip|torch|triton|(nvidia|cuda)-.*|rsb-pose-.*')
    installed = {
        normalised(found.metadata['Name']): str(Version(found.version))
        for found in distributions(path=[path for path in sys.path if path.endswith('-packages')])
        if found.read_text('WHEEL') is not None
    }
    assert len(installed) > 100
    for name, found_version in installed.items():
        assert left_out.fullmatch(name) or constraints[name] == found_version, name


@pytest.mark.parametrize('message', MESSAGES)
def test_message_is_built_with_the_type_hash_of_its_source(message):
    store = get_typestore(Stores.ROS2_JAZZY)
    for name in MESSAGES:
        source = (REPOSITORY / 'msg' / f'{name}.msg').read_text()
        store.register(get_types_from_msg(source, f'rsb_pose_ros/msg/{name}'))
    typename = f'rsb_pose_ros/msg/{message}'
    assert built_hash('rsb_pose_ros', message) == store.hash_rihs01(typename)
    fields = getattr(rsb_pose_ros.msg, message).get_fields_and_field_types()
    assert list(fields) == [field[0] for field in store.fielddefs[typename][1]]


def test_tf2_msgs_has_the_type_hash_of_upstream():
    assert built_hash('tf2_msgs', 'TFMessage') == UPSTREAM_TFMESSAGE_HASH


def test_cmake_lists_name_every_message():
    cmake = (REPOSITORY / 'CMakeLists.txt').read_text()
    assert sorted(re.findall(r'"msg/(\w+)\.msg"', cmake)) == MESSAGES


def test_wheels_name_no_folder_of_the_machine_that_built_them():
    exported = list(Path(sys.prefix, 'share').glob('*/cmake/*Export*.cmake'))
    assert len(exported) > 100
    assert not [path.name for path in exported if '/opt/python/' in path.read_text()]


def test_executables_name_functions_that_exist():
    config = configparser.ConfigParser()
    config.read(REPOSITORY / 'setup.cfg')
    scripts = config['options.entry_points']['console_scripts'].split('\n')[1:]
    names = []
    for script in scripts:
        name, module, function = re.fullmatch(r'([\w-]+) = ([\w.]+):(\w+)', script).groups()
        source = REPOSITORY.joinpath(*module.split('.')).with_suffix('.py').read_text()
        assert function in top_level_names(ast.parse(source)), module
        names.append(name)
    assert names == ['stereo_pose', 'bag_player', 'bag_evaluator', 'rsb-pose']


def test_core_imports_without_ros():
    code = """
import importlib, pkgutil, sys
for name in ('rclpy', 'rsb_pose_ros', 'message_filters', 'cv_bridge', 'image_geometry', 'tf2_ros'):
    sys.modules[name] = None  # importing it raises ImportError
import rsb_pose_core
modules = pkgutil.walk_packages(rsb_pose_core.__path__, 'rsb_pose_core.')
names = [module.name for module in modules if not module.name.endswith('__main__')]
for name in names:
    importlib.import_module(name)
print(len(names))
"""
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) > 20


def test_missing_system_package_is_one_sentence_with_the_apt_command(tmp_path):
    result = subprocess.run(
        [sys.executable, PIP_ROS / 'setup_venv.py'],
        env={**os.environ, 'PATH': str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 2
    assert result.stdout == ''
    assert result.stderr == (
        'setup: cmake, ninja-build, g++ must be installed on this system: '
        'run `sudo apt-get install cmake ninja-build g++` and try again.\n'
    )


def top_level_names(module):
    """Names of the functions that a syntax tree defines or imports at its top level."""
    functions = [node.name for node in module.body if isinstance(node, ast.FunctionDef)]
    imports = [node for node in module.body if isinstance(node, ast.ImportFrom)]
    return functions + [alias.name for node in imports for alias in node.names]


class FakeSteps:
    """Two steps that read a file each and write down that they ran."""

    def __init__(self, setup_venv, folder):
        self.first, self.second = folder / 'first.txt', folder / 'second.txt'
        self.first.write_text('1')
        self.second.write_text('2')
        self.ran = []
        self.steps = [
            setup_venv.Step('first', (self.first,), lambda: self.ran.append('first')),
            setup_venv.Step('second', (self.second,), lambda: self.ran.append('second')),
        ]
        self._run = setup_venv.run

    def run(self):
        self.ran.clear()
        self._run(self.steps)
        return self.ran


@pytest.fixture
def fake_steps(setup_venv, tmp_path, monkeypatch):
    monkeypatch.setattr(setup_venv, 'STATE', tmp_path / 'state')
    return FakeSteps(setup_venv, tmp_path)


def test_second_setup_does_nothing_and_says_nothing(fake_steps, capsys):
    assert fake_steps.run() == ['first', 'second']
    assert 'setup 2/2: second ... 0 s\n' in capsys.readouterr().out
    assert fake_steps.run() == []
    assert capsys.readouterr().out == ''


def test_setup_repeats_what_changed_and_what_follows(fake_steps):
    fake_steps.run()
    fake_steps.second.write_text('new')
    assert fake_steps.run() == ['second']
    fake_steps.first.write_text('new')
    assert fake_steps.run() == ['first', 'second']


def test_setup_repeats_a_step_that_failed(fake_steps, setup_venv, capsys):
    def fail():
        raise setup_venv.SetupError('no network')

    good = fake_steps.steps[1]
    fake_steps.steps[1] = setup_venv.Step('second', good.inputs, fail)
    with pytest.raises(setup_venv.SetupError, match='no network'):
        fake_steps.run()
    assert 'second ... failed' in capsys.readouterr().out
    fake_steps.steps[1] = good
    assert fake_steps.run() == ['second']


def test_setup_keeps_to_the_torch_that_was_asked_for(setup_venv, tmp_path, monkeypatch):
    monkeypatch.setattr(setup_venv, 'STATE', tmp_path)
    monkeypatch.setattr(setup_venv, 'TORCH_CHOICE', tmp_path / 'torch')
    monkeypatch.setattr(setup_venv, 'run', lambda todo: None)
    assert setup_venv.chosen_torch() is None
    setup_venv.set_up('torch==2.11.0')
    assert setup_venv.chosen_torch() == 'torch==2.11.0'
    step = next(step for step in setup_venv.steps('torch==2.11.0') if step.name == 'torch')
    assert step.inputs[1:] == ('torch==2.11.0',)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_colcon_builds_and_tests_the_package():
    result = subprocess.run(
        [PIP_ROS / 'colcon.sh'], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert result.returncode == 0, result.stdout
    assert result.stdout.endswith('rsb_pose_ros.msg._human_pose3_d is installed\n')
