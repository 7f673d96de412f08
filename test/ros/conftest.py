"""Real rclpy and DDS, on this machine alone, with a domain of its own for every test module."""

import importlib.util
import os
import zlib

import pytest

os.environ['ROS_PYTHON_CHECK_FIELDS'] = '1'
os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'

if importlib.util.find_spec('rclpy') is None:
    collect_ignore_glob = ['test_*.py']


def domain_of(name: str) -> int:
    """A domain for a module of this test run, apart from those of other runs."""
    return 10 + zlib.crc32(f'{name} {os.getpid()}'.encode()) % 85


@pytest.fixture(scope='module')
def ros_domain(request):
    """An initialized rclpy context in a domain of its own; the domain's number."""
    import rclpy

    domain_id = domain_of(request.module.__name__)
    rclpy.init(args=[], domain_id=domain_id)
    yield domain_id
    rclpy.try_shutdown()


@pytest.fixture
def bench(ros_domain):
    """A node with an oracle, connected to what it hears and says."""
    from bench import Bench

    with Bench() as running:
        running.connect()
        yield running
