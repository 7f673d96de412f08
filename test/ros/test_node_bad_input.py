"""Bad input in real DDS: one sentence on the log and on /diagnostics, then recovery."""

import numpy as np
import pytest
from bench import Bench, until
from sensor_msgs.msg import Image
from std_srvs.srv import SetBool
from stereo_world import HEIGHT, PERIOD_NS, START_NS, WIDTH, image

from rsb_pose_ros.images import rgb_to_image

pytestmark = pytest.mark.usefixtures('ros_domain')


def test_missing_camera_info_names_topics_and_publishers_and_recovers(capfd):
    with Bench(silence_timeout_s=0.5) as bench:
        bench.connect()
        fault = bench.await_fault('no camera_info', keep_publishing=lambda: bench.publish_pair(0))
        assert '/left/camera_info (0 publishers)' in fault
        assert '/right/camera_info (0 publishers)' in fault
        bench.publish_infos()
        bench.pair_until_poses(1)
        until(lambda: not bench.fault(), 'recovery')
    assert capfd.readouterr().err.count('[stereo_pose]: no camera_info') == 1


def test_no_images_are_told_with_topic_and_publishers():
    with Bench(silence_timeout_s=0.5) as bench:
        fault = bench.await_fault('no images for 0.5 s on', 'QoS')
        assert '/left/image_raw (1 publisher) and /right/image_raw (1 publisher)' in fault


def zero_k(left, right):
    left.k = np.zeros(9)


def wrong_size(left, right):
    left.width = right.width = 2 * WIDTH


def unequal_calibrated_sizes(left, right):
    right.width = 2 * WIDTH


def no_baseline(left, right):
    right.p[3] = 0.0


def swapped(left, right):
    left.p, right.p = right.p.copy(), left.p.copy()


def unequal_p(left, right):
    right.p[0] = right.p[5] = 250.0


def empty(left, right):
    left.width = left.height = 0
    left.k, left.p, left.r = np.zeros(9), np.zeros(12), np.zeros(9)


@pytest.mark.parametrize(
    ('spoil', 'words'),
    [
        (zero_k, ('left camera', 'not calibrated')),
        (wrong_size, ('320x240', '640x240')),
        (unequal_calibrated_sizes, ('320x240', '640x240', 'equal sizes')),
        (no_baseline, ('baseline',)),
        (swapped, ('swap',)),
        (unequal_p, ('differ',)),
        (empty, ('left camera', '0x0')),
    ],
)
def test_bad_camera_info_is_told_in_one_sentence_and_good_one_brings_poses(bench, spoil, words):
    bench.publish_infos(spoil)
    bench.publish_pair(0)
    fault = bench.await_fault(*words)
    assert fault == bench.status('calibration').message
    assert '\n' not in fault
    assert bench.status('calibration').level in (b'\x01', b'\x02')
    assert not bench.people
    bench.publish_infos()
    assert bench.pair_until_poses(1).people
    until(lambda: not bench.fault(), 'recovery')
    assert bench.counts()['pairs_dropped'] >= 1


def larger(picture: Image) -> Image:
    return rgb_to_image(np.zeros((HEIGHT, 2 * WIDTH, 3), np.uint8), picture.header)


def unknown_encoding(picture: Image) -> Image:
    picture.encoding = 'bgr9'
    return picture


def cut_short(picture: Image) -> Image:
    picture.data = picture.data[: len(picture.data) // 2]
    return picture


def empty_image(picture: Image) -> Image:
    return Image(header=picture.header)


def before_1970(picture: Image) -> Image:
    picture.header.stamp.sec = -1
    return picture


@pytest.mark.parametrize(
    ('spoil', 'words'),
    [
        (before_1970, ('right images', 'before the year 1970')),
        (larger, ('640x240', '320x240')),
        (unknown_encoding, ("'bgr9'", 'right image')),
        (cut_short, ('right image', '115200 bytes')),
        (empty_image, ('right image', 'no data')),
    ],
)
def test_bad_image_is_told_in_one_sentence_and_good_ones_bring_poses(bench, spoil, words):
    bench.publish_infos()
    stamp = 1_700_000_000_000_000_000
    bench.publish('left', image(0, 'left', stamp))
    bench.publish('right', spoil(image(0, 'right', stamp)))
    fault = bench.await_fault(*words)
    assert fault == bench.status('images').message
    assert '\n' not in fault
    assert bench.pair_until_poses(1).people
    until(lambda: not bench.fault(), 'recovery')


def test_stamps_that_never_match_are_told_and_approximate_sync_helps_at_run_time():
    with Bench(queue_size=3) as bench:
        bench.connect()
        bench.publish_infos()
        index = iter(range(10_000))
        fault = bench.await_fault(
            'never match',
            keep_publishing=lambda: bench.publish_pair(next(index), skew_ns=4_000_000),
        )
        assert 'they must be equal' in fault
        assert '4 ms apart' in fault
        assert 'set approximate_sync' in fault
        assert not bench.people
        assert bench.set_parameter('approximate_sync', True).successful
        message = bench.pair_until_poses(next(index), skew_ns=4_000_000)
        assert message.stamp_skew_ms == pytest.approx(4.0)
        until(lambda: not bench.fault(), 'recovery')


def test_fault_of_one_part_goes_when_another_part_is_at_fault():
    with Bench(queue_size=3, silence_timeout_s=0.5) as bench:
        bench.connect()
        index = iter(range(10_000))
        bench.await_fault('no camera_info')
        bench.publish_infos()
        never_matching = lambda: bench.publish_pair(next(index), skew_ns=1_000_000)  # noqa: E731
        bench.await_fault('never match', keep_publishing=never_matching)
        until(lambda: bench.status('calibration').level == b'\x00', 'calibration well again')
        assert bench.call(SetBool, 'stereo_pose/enable', SetBool.Request(data=False)).success
        until(lambda: 'disabled' in bench.status('images').message, 'disabled')
        assert bench.fault() == ''


def without_stamp(picture: Image) -> Image:
    picture.header.stamp.sec = picture.header.stamp.nanosec = 0
    return picture


def without_frame(picture: Image) -> Image:
    picture.header.frame_id = ''
    return picture


@pytest.mark.parametrize(
    ('spoil', 'words'), [(without_stamp, 'have no stamp'), (without_frame, 'have no frame_id')]
)
def test_header_that_lacks_something_is_told_once_while_poses_come(bench, spoil, words, capfd):
    bench.publish_infos()
    for index in range(3):
        stamp_ns = START_NS + index * PERIOD_NS
        before = len(bench.people)
        for view in ('left', 'right'):
            bench.publish(view, spoil(image(index, view, stamp_ns)))
        until(lambda before=before: len(bench.people) > before, 'poses')
    assert words in bench.await_fault(words)
    logged = capfd.readouterr().err
    assert logged.count(words) == 1
    assert 'images: working again' not in logged
