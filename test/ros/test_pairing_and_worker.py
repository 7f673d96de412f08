"""Which images become pairs, and which pairs reach the worker; no DDS."""

import threading

import pytest
from sensor_msgs.msg import Image
from stereo_world import stamped

from rsb_pose_ros.faults import FaultBook, Level, Part
from rsb_pose_ros.pairing import ImagePairer
from rsb_pose_ros.worker import NewestWorker

MS = 1_000_000


def frame(stamp_ms: float) -> Image:
    return Image(header=stamped(10**18 + int(stamp_ms * MS)))


def pairer(pairs, *, approximate=False, queue_size=5, slop_s=0.01) -> ImagePairer:
    return ImagePairer(pairs.append, approximate=approximate, queue_size=queue_size, slop_s=slop_s)


def test_equal_stamps_pair_whatever_order_they_come_in():
    pairs = []
    target = pairer(pairs)
    for stamp in (0, 33, 66):
        target.add_left(frame(stamp))
    for stamp in (66, 0, 33):
        target.add_right(frame(stamp))
    assert target.counts.matched == len(pairs)
    assert {pair.skew_ms for pair in pairs} == {0.0}
    counts = target.counts
    assert counts.left + counts.right == 2 * counts.matched + counts.unmatched + counts.waiting


def test_skew_is_right_minus_left_in_ms():
    pairs = []
    target = pairer(pairs, approximate=True)
    target.add_left(frame(100))
    target.add_right(frame(104))
    assert pairs[0].skew_ms == pytest.approx(4.0)


def test_images_without_partner_are_counted_once_they_are_evicted():
    target = pairer([], queue_size=5)
    for stamp in range(8):
        target.add_left(frame(33 * stamp))
    counts = target.counts
    assert (counts.left, counts.matched, counts.waiting, counts.unmatched) == (8, 0, 5, 3)


@pytest.mark.parametrize('approximate', [False, True])
def test_loop_after_missed_frames_loses_no_pair(approximate):
    """The plain synchronizers match none of these 100 pairs."""
    pairs = []
    target = pairer(pairs, approximate=approximate, queue_size=10)
    for stamp in range(12):
        target.add_left(frame(10_000 + 66 * stamp))
    for stamp in range(100):
        target.add_left(frame(66 * stamp))
        target.add_right(frame(66 * stamp))
    assert len(pairs) == 100
    assert target.jumps == 1
    assert target.counts.unmatched == 12


def test_both_cameras_jumping_back_one_after_the_other_loses_no_pair():
    pairs = []
    target = pairer(pairs)
    for start in (5_000, 0):
        for stamp in range(10):
            target.add_left(frame(start + 66 * stamp))
            target.add_right(frame(start + 66 * stamp))
    assert len(pairs) == 20
    assert target.counts.unmatched == 0


def test_stuck_streams_are_explained_and_the_reason_goes_with_the_first_pair():
    pairs = []
    target = pairer(pairs, queue_size=3)
    for stamp in range(10):
        target.add_left(frame(33 * stamp))
        target.add_right(frame(33 * stamp + 5))
    assert 'must be equal, the closest are about 5 ms apart' in target.stuck_reason
    target.set_policy(approximate=True, queue_size=3, slop_s=0.01)
    for stamp in range(10, 12):
        target.add_left(frame(33 * stamp))
        target.add_right(frame(33 * stamp + 5))
    assert pairs
    assert target.stuck_reason == ''


def test_image_from_before_1970_is_left_out_and_told_until_a_good_one_comes():
    pairs = []
    target = pairer(pairs)
    target.add_left(Image(header=stamped(-5 * MS)))
    assert 'left images have stamps before the year 1970' in target.refused
    target.add_right(frame(0))
    assert target.refused
    target.add_left(frame(0))
    assert target.refused == ''
    counts = target.counts
    assert (counts.left, counts.right, counts.matched, counts.unmatched) == (2, 1, 1, 1)
    assert target.jumps == 0


def test_counts_are_never_negative_while_a_pair_is_handed_on():
    seen = []
    target = ImagePairer(
        lambda pair: seen.append(target.counts), approximate=False, queue_size=5, slop_s=0.01
    )
    target.add_left(frame(0))
    target.add_right(frame(0))
    assert [(counts.matched, counts.unmatched) for counts in seen] == [(1, 0)]


def test_worker_takes_the_newest_and_counts_what_it_skipped():
    started, release, seen = threading.Event(), threading.Event(), []

    def work(item: int) -> None:
        seen.append(item)
        started.set()
        release.wait(10)

    worker = NewestWorker(work, lambda error: None, 'test')
    worker.start()
    worker.offer(0)
    assert started.wait(10)
    for item in (1, 2, 3):
        worker.offer(item)
    assert worker.counts.in_hand == 2
    release.set()
    assert worker_done(worker)
    assert seen == [0, 3]
    counts = worker.counts
    assert (counts.offered, counts.processed, counts.dropped, counts.in_hand) == (4, 2, 2, 0)
    assert worker.stop()


def test_worker_survives_failing_work_and_failing_report():
    errors = []

    def work(item: int) -> None:
        if item < 2:
            raise ValueError(item)

    def report(error: Exception) -> None:
        errors.append(error)
        raise RuntimeError('the report fails as well')

    worker = NewestWorker(work, report, 'test')
    worker.start()
    for item in (0, 1, 2):
        worker.offer(item)
        assert worker_done(worker)
    assert [error.args for error in errors] == [(0,), (1,)]
    assert (worker.counts.processed, worker.counts.dropped) == (1, 2)
    assert worker.stop()


def test_worker_that_is_stopped_drops_what_waits():
    worker = NewestWorker(lambda item: None, lambda error: None, 'test')
    worker.offer(1)
    assert worker.stop()
    worker.offer(2)
    assert worker.counts.dropped == worker.counts.offered == 2


def worker_done(worker: NewestWorker) -> bool:
    for _ in range(1000):
        if worker.counts.in_hand == 0:
            return True
        threading.Event().wait(0.01)
    return False


def test_fault_is_logged_when_it_comes_or_changes_and_not_again():
    lines = []
    book = FaultBook(lambda level, sentence: lines.append((level, sentence)), repeat_s=60)
    for _ in range(5):
        book.report(Part.IMAGES, Level.WARN, 'too dark')
    book.report(Part.IMAGES, Level.ERROR, 'gone')
    book.clear(Part.IMAGES, 'back')
    book.clear(Part.IMAGES, 'back')
    book.report(Part.IMAGES, Level.ERROR, 'gone')
    assert lines == [(Level.WARN, 'too dark'), (Level.ERROR, 'gone'), (Level.OK, 'back')]
    assert book.get(Part.IMAGES).sentence == 'gone'
    assert book.get(Part.NETWORK) is None
    assert book.last.sentence == 'gone'


def test_sentences_that_change_all_the_time_are_not_kept_for_ever(monkeypatch):
    now_s = 0.0
    monkeypatch.setattr('rsb_pose_ros.faults.time.monotonic', lambda: now_s)
    book = FaultBook(lambda level, sentence: None, repeat_s=10)
    for number in range(1000):
        now_s = float(number)
        book.report(Part.IMAGES, Level.ERROR, f'image {number} is bad')
    assert len(book._last_logged_s) <= 11
