"""What colcon installed, as users of ROS find it; run by `colcon test`."""

import importlib
import os
import subprocess
from pathlib import Path

import pytest
from ament_index_python.packages import get_package_prefix, get_package_share_directory
from rclpy.serialization import deserialize_message, serialize_message

from rsb_pose_ros.msg import HumanPose3D, HumanPose3DArray, Joint3D

PREFIX = Path(get_package_prefix('rsb_pose_ros'))
EXECUTABLES = PREFIX / 'lib' / 'rsb_pose_ros'


@pytest.mark.parametrize('name', ['rsb_pose_core', 'rsb_pose_ros.node', 'rsb_pose_ros.msg'])
def test_module_comes_from_the_installation(name):
    module = importlib.import_module(name)
    assert Path(module.__file__).is_relative_to(PREFIX)


@pytest.mark.parametrize('name', ['stereo_pose', 'bag_player', 'bag_evaluator', 'rsb-pose'])
def test_executable_is_where_ros2_run_looks(name):
    assert os.access(EXECUTABLES / name, os.X_OK)


def test_command_line_answers_help():
    result = subprocess.run(
        [EXECUTABLES / 'rsb-pose', '--help'],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert 'usage: rsb-pose' in result.stdout


@pytest.mark.parametrize(
    'pattern', ['launch/stereo_pose.launch.py', 'config/stereo_pose.yaml', 'weights/*.safetensors']
)
def test_share_folder_holds_what_the_node_reads(pattern):
    assert list(Path(get_package_share_directory('rsb_pose_ros')).glob(pattern))


def test_message_survives_serialization():
    covariance = [float(value) for value in range(9)]
    joint = Joint3D(name='pelvis', covariance=covariance, state=Joint3D.MEASURED)
    sent = HumanPose3DArray(people=[HumanPose3D(track_id=7, joints=[joint])])
    received = deserialize_message(serialize_message(sent), HumanPose3DArray)
    assert received == sent
    assert received.people[0].joints[0].covariance[5] == 5.0
