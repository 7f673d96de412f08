"""`rsb-pose` and `python -m rsb_pose_core`."""

import sys

from rsb_pose_core.cli import main

if __name__ == '__main__':
    sys.exit(main())
