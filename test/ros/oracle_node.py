"""The real node with the tests' oracle in place of the network, as a process of its own.

The environment variable ORACLE_WORK_S makes each pair take that long.
"""

import os
import sys
import time
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from stereo_world import OraclePipeline, oracle_loader

from rsb_pose_ros import node


def main() -> int:
    work_s = float(os.environ.get('ORACLE_WORK_S', '0'))
    pipeline = OraclePipeline(work=lambda _: time.sleep(work_s))
    node.StereoPoseNode = partial(node.StereoPoseNode, oracle_loader(pipeline))
    return node.main()


if __name__ == '__main__':
    sys.exit(main())
