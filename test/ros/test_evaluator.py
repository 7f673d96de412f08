"""When the evaluator stops waiting, and what it counts."""

import time

from bench import until
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from stereo_world import stamped

from rsb_pose_ros.bag_evaluator import BagEvaluator
from rsb_pose_ros.msg import HumanPose3D, HumanPose3DArray


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


def counted(**counters: int) -> DiagnosticArray:
    def status(node: str, factor: int) -> DiagnosticStatus:
        values = [KeyValue(key=key, value=str(factor * n)) for key, n in counters.items()]
        return DiagnosticStatus(name=f'{node}: network', level=b'\x00', values=values)

    return DiagnosticArray(status=[status('/stereo_pose', 1), status('/stereo_pose_rear', 100)])


def test_counters_are_those_of_one_node_since_the_evaluator_came(ros_domain):
    evaluator = BagEvaluator('/stereo_pose')
    assert evaluator.count('pairs_processed') == 0
    people = evaluator.create_publisher(HumanPose3DArray, 'human_pose3d/people', 1)
    until(lambda: evaluator.count_publishers(people.topic_name), 'discovery')
    assert not evaluator.progress()['connected']  # a pair that comes now would not be counted
    evaluator._on_diagnostics(counted(pairs_processed=183, pairs_dropped=2))
    assert evaluator.count('pairs_processed') == 0
    assert evaluator.progress()['connected']
    evaluator._on_diagnostics(counted(pairs_processed=190, pairs_dropped=2))
    assert (evaluator.count('pairs_processed'), evaluator.count('pairs_dropped')) == (7, 0)
    evaluator.destroy_node()


def test_a_true_person_of_a_looped_bag_is_one_person(ros_domain):
    evaluator = BagEvaluator('/stereo_pose')
    for _ in range(3):
        for track in (1, 2):
            person = HumanPose3D(header=stamped(10**18), track_id=track)
            evaluator._on_truth(person)
    assert [person.track_id for person in evaluator.truths[10**18]] == [1, 2]
    evaluator.destroy_node()
