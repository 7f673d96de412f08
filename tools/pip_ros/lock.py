"""Write constraints.txt: the version of everything that pip put into .venv (`make lock`).

Wheels of ROS also carry the .egg-info of the packages inside them (rclpy, std_msgs, ...): those
are not names of a package index and must never be asked for, so only .dist-info folders count.
torch stands in requirements-torch.txt and holds its own libraries to exact versions.
"""

from importlib.metadata import Distribution, distributions
from pathlib import Path

from packaging.version import Version

CONSTRAINTS = Path(__file__).with_name('constraints.txt')
HEADER = '# Every version that pip installs into .venv, written by make lock.\n'
LEFT_OUT = {'pip', 'rsb_pose_core', 'rsb-pose-ros-stand-ins', 'torch', 'triton'}


def is_from_an_index(distribution: Distribution) -> bool:
    """Whether pip installed this distribution under a name that a package index knows."""
    name = distribution.metadata['Name']
    if name in LEFT_OUT or name.startswith('nvidia-'):
        return False
    return distribution.read_text('WHEEL') is not None


def main() -> None:
    """Write constraints.txt from the environment that runs this."""
    versions = {
        d.metadata['Name']: Version(d.version)  # as an index spells it: 1.0-2 is 1.0.post2
        for d in distributions()
        if is_from_an_index(d)
    }
    lines = [f'{name}=={versions[name]}\n' for name in sorted(versions, key=str.lower)]
    CONSTRAINTS.write_text(HEADER + ''.join(lines), encoding='utf-8')


if __name__ == '__main__':
    main()
