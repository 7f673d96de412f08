"""When the evaluator stops waiting."""

import time

from rsb_pose_ros.bag_evaluator import BagEvaluator
from rsb_pose_ros.msg import HumanPose3DArray


def test_evaluation_ends_soon_with_every_message_and_later_without(ros_domain):
    evaluator = BagEvaluator('/stereo_pose')
    evaluator.diagnostics = {'pairs_matched': '5', 'pairs_processed': '4', 'pairs_dropped': '1'}

    def settled_after(quiet_s: float, frames: int) -> bool:
        evaluator.frames = [HumanPose3DArray() for _ in range(frames)]
        evaluator.changed_s = time.monotonic() - quiet_s
        return evaluator.settled

    assert not settled_after(1.0, frames=4)
    assert settled_after(4.0, frames=4)
    assert not settled_after(4.0, frames=3)  # one may still be on its way
    assert settled_after(9.0, frames=3)  # it was lost
    evaluator.destroy_node()
