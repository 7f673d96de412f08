"""Tests of the packages that tools/pip_ros/stand_ins replaces; skipped where ROS is missing."""

import os

import pytest

collect_ignore_glob: list[str] = []
try:
    import rclpy
except ImportError:
    collect_ignore_glob = ['test_*.py']

os.environ.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
os.environ.setdefault('ROS_PYTHON_CHECK_FIELDS', '1')


@pytest.fixture(scope='module')
def context():
    """An initialised context on a domain that no other test run shares."""
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=1 + os.getpid() % 100)
    yield context
    rclpy.shutdown(context=context)


@pytest.fixture
def node(context):
    node = rclpy.create_node('stand_ins', context=context, namespace='/test')
    yield node
    node.destroy_node()


@pytest.fixture
def spin_until(context, node):
    """Spin the node until a condition holds, at most 10 s; returns whether it does."""
    executor = rclpy.executors.SingleThreadedExecutor(context=context)
    executor.add_node(node)

    def spin(condition):
        for _ in range(200):
            if condition():
                return True
            executor.spin_once(timeout_sec=0.05)
        return condition()

    yield spin
    executor.shutdown()
