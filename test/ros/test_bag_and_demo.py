"""Player, evaluator and demo as processes over real DDS, on a small bag of the tests' world."""

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import pytest
from conftest import domain_of
from rclpy.qos import DurabilityPolicy
from stereo_world import write_bag

from rsb_pose_ros import demo
from rsb_pose_ros.bag_player import BagPlayer
from rsb_pose_ros.bags import BagError, open_bag
from rsb_pose_ros.demo import problems
from rsb_pose_ros.processes import dds_environment
from rsb_pose_ros.topics import StereoTopics

HERE = Path(__file__).resolve().parent
ORACLE_NODE = (sys.executable, str(HERE / 'oracle_node.py'))
PAIRS = 40


@pytest.fixture(scope='module')
def bag(tmp_path_factory) -> Path:
    return write_bag(tmp_path_factory.mktemp('bags') / 'board', PAIRS)


def segments() -> set[str]:
    return {path.name for path in Path('/dev/shm').glob('*fastrtps*')}


def cut(bag: Path, folder: Path) -> Path:
    """The bag with the second half of its data missing."""
    folder.mkdir()
    for file in bag.iterdir():
        content = file.read_bytes()
        (folder / file.name).write_bytes(
            content[: len(content) // 2] if file.suffix == '.mcap' else content
        )
    return folder


def test_topics_of_a_bag_are_found_by_type(bag):
    with open_bag(bag) as opened:
        topics = StereoTopics.of(opened)
        assert topics.left_image == '/stereo/left/image_raw/compressed'
        assert topics.right_info == '/stereo/right/camera_info'
        assert topics.transport == 'compressed'
        assert opened.count(topics.left_image) == PAIRS
        assert opened.duration_s == pytest.approx((PAIRS - 1) / 15, abs=1e-3)
        assert 'left/camera_info:=/stereo/left/camera_info' in topics.remappings


class Listed:
    """A bag of which only the topics are known, each with a message."""

    path = Path('listed')

    def __init__(self, *topics: str) -> None:
        names = {'camera_info': 'CameraInfo', 'compressed': 'CompressedImage', 'tf': 'TF'}
        self.kinds = {
            topic: f'sensor_msgs/msg/{names.get(topic.rpartition("/")[2], "Image")}'
            for topic in topics
        }

    def require(self, topics: tuple[str, ...]) -> None:
        if not set(topics) <= set(self.kinds):
            raise BagError(f'no messages on {topics}')


def head(left: str, right: str, *images: str) -> list[str]:
    return [f'{view}/{name}' for view in (left, right) for name in ('camera_info', *images)]


@pytest.mark.parametrize(
    ('topics', 'namespaces', 'expected'),
    [
        (head('/a/left', '/a/right', 'image_raw', 'image_raw/compressed', 'image_rect'), None,
         ('/a/left/image_raw', '/a/right/image_raw')),
        ([*head('/a/left', '/a/right', 'image_raw/compressed'), '/stereo_pose/overlay'], None,
         ('/a/left/image_raw/compressed', '/a/right/image_raw/compressed')),
        ([*head('/cam/infra1', '/cam/infra2', 'image_raw'), '/cam/color/camera_info',
          '/cam/color/image_raw'], ('/cam/infra1', '/cam/infra2'),
         ('/cam/infra1/image_raw', '/cam/infra2/image_raw')),
        (head('/cam/infra1', '/cam/infra2', 'image_rect', 'image_rect/compressed'),
         ('/cam/infra1', '/cam/infra2'), ('/cam/infra1/image_rect', '/cam/infra2/image_rect')),
        (head('/one', '/two', 'image_raw'), ('two/', 'one'), ('/two/image_raw', '/one/image_raw')),
        (head('/front/left', '/front/right', 'image_raw')
         + head('/rear/left', '/rear/right', 'image_raw'), ('/rear/left', '/rear/right'),
         ('/rear/left/image_raw', '/rear/right/image_raw')),
    ],
)  # fmt: skip
def test_cameras_are_found_among_other_images(topics, namespaces, expected):
    found = StereoTopics.of(Listed(*topics), namespaces)
    assert (found.left_image, found.right_image) == expected
    assert found.left_info == expected[0].partition('/image_')[0] + '/camera_info'


def test_rectified_images_are_handed_to_the_node_as_such():
    topics = StereoTopics.of(Listed(*head('/a/left', '/a/right', 'image_rect/compressed')))
    assert topics.rectified
    words = demo.node_arguments(topics, None)
    assert 'input_rectified:=true' in words
    assert 'left/image_rect/compressed:=/a/left/image_rect/compressed' in words
    plain = StereoTopics.of(Listed(*head('/a/left', '/a/right', 'image_raw', 'image_rect')))
    assert not plain.rectified
    assert 'input_rectified:=true' not in demo.node_arguments(plain, None)


def test_what_an_earlier_run_said_is_not_played(bag, ros_domain):
    with open_bag(bag) as opened:
        told = {
            '/human_pose3d': 'rsb_pose_ros/msg/HumanPose3D',
            '/front/human_pose3d/people': 'rsb_pose_ros/msg/HumanPose3DArray',
            '/stereo_pose/markers': 'visualization_msgs/msg/MarkerArray',
            '/diagnostics': 'diagnostic_msgs/msg/DiagnosticArray',
            '/tf_static': 'tf2_msgs/msg/TFMessage',
            '/odd': 'nobody_has/msg/This',
        }
        both = {**opened.kinds, **told}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(type(opened), 'kinds', both)
            player = BagPlayer(opened, publish_clock=False, probe=False)
        assert set(player.sent) == {*opened.kinds, '/tf_static'}
        assert player.unplayed == [
            '/odd is not played: the message type nobody_has/msg/This is not installed; build or '
            'install its package'
        ]
        (latched,) = player.get_publishers_info_by_topic('/tf_static')
        assert latched.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL
        player.destroy_node()


@pytest.mark.parametrize('namespaces', [None, ('/cam/left', '/cam/right')])
def test_images_that_are_no_stereo_head_are_refused(namespaces):
    listed = Listed(*head('/cam/infra1', '/cam/infra2', 'image_raw'), '/c/image', '/d/image')
    listed.kinds['/cam/infra2/image_raw'] = 'sensor_msgs/msg/CompressedImage'
    with pytest.raises(BagError, match='expected a left and a right one of one type'):
        StereoTopics.of(listed, namespaces)


def test_bag_without_a_second_camera_is_refused(tmp_path):
    path = write_bag(tmp_path / 'mono', 2, with_right=False)
    with (
        open_bag(path) as opened,
        pytest.raises(BagError, match='1 image topics .* expected a left and a right'),
    ):
        StereoTopics.of(opened)


def test_required_topics_that_are_absent_are_named(bag):
    with open_bag(bag) as opened, pytest.raises(BagError, match='no messages on /elsewhere'):
        opened.require(('/elsewhere',))


def test_cut_bag_and_missing_bag_are_one_sentence(bag, tmp_path):
    with pytest.raises(BagError, match='there is no bag'), open_bag(tmp_path / 'absent'):
        pass

    def read_all() -> None:
        with open_bag(cut(bag, tmp_path / 'cut')) as opened:
            list(opened.records())

    with pytest.raises(BagError, match='cannot be read, it may be cut short') as error:
        read_all()
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('tool', ['bag_player', 'demo'])
def test_bad_bag_ends_a_command_with_status_2_and_one_sentence(tool, tmp_path):
    absent = tmp_path / 'absent'
    words = [str(absent)] if tool == 'bag_player' else ['--bag', str(absent), '--out', tmp_path]
    ended = subprocess.run(
        [sys.executable, '-m', f'rsb_pose_ros.{tool}', *words],
        env=dds_environment(domain_of(__name__)),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 2
    assert ended.stderr == f'{tool}: there is no bag {absent}; ' + (
        'give the folder of a bag or its .mcap file\n'
    )


def test_player_gives_up_on_a_bag_that_nobody_listens_to(bag):
    ended = subprocess.run(
        [sys.executable, '-m', 'rsb_pose_ros.bag_player', str(bag), '--wait', '0.5'],
        env=dds_environment(domain_of('nobody here')),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 2
    assert 'nobody subscribed to /stereo/left/image_raw/compressed' in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


def test_demo_with_a_slow_node_accounts_for_every_pair(bag, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv('ORACLE_WORK_S', '0.15')
    before = segments()
    words = ['--bag', str(bag), '--out', str(tmp_path), '--rate', '1.0']
    words += ['--domain-id', str(domain_of('slow demo'))]
    assert demo.main(words, node=ORACLE_NODE) == 0
    report = json.loads((tmp_path / 'report.json').read_text())
    assert report['frames_sent'] == PAIRS
    assert report['processed'] + report['dropped'] + report['unmatched'] == PAIRS
    assert report['pairs_matched'] == report['processed'] + report['dropped']
    assert report['processed'] == report['frames_received'] == report['poses_published']
    assert report['dropped'] >= 10
    assert report['processed'] >= 5
    assert report['latency_ms']['p50'] >= 150
    assert report['accuracy']['MPJPE_ab_mm']['all']['mean_mm'] < 1.0
    assert report['accuracy']['share_found'] == 1.0
    visible = report['accuracy']['MPJPE_ab_mm']['visible']['count']
    assert visible == 11 * report['accuracy']['people_compared']
    assert report['weights']['name'] == 'oracle.safetensors'
    assert 'versions' in report
    assert f'{PAIRS} sent' in capsys.readouterr().out
    film = cv2.VideoCapture(str(tmp_path / 'overlay.mp4'))
    assert film.get(cv2.CAP_PROP_FRAME_COUNT) == PAIRS
    picture = cv2.imread(str(tmp_path / 'skeletons.png'))
    assert picture is not None
    assert picture.std() > 5
    assert not {name for name in segments() - before if _is_ours(name)}


def _is_ours(name: str) -> bool:
    """Whether no living process has it mapped; others on this machine may have started since."""
    maps = (entry / 'maps' for entry in Path('/proc').iterdir() if entry.name.isdigit())
    return not any(name in _read(path) for path in maps)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ''


def test_auto_rate_follows_what_the_node_can_do(bag, tmp_path, monkeypatch):
    monkeypatch.setenv('ORACLE_WORK_S', '0.2')
    words = ['--bag', str(bag), '--out', str(tmp_path), '--rate', 'auto']
    words += ['--domain-id', str(domain_of('auto demo'))]
    assert demo.main(words, node=ORACLE_NODE) == 0
    report = json.loads((tmp_path / 'report.json').read_text())
    # 15 Hz recorded, at most 5 a second processed: the rate is at most a third of 0.8.
    assert 0.03 < report['play_rate'] <= 0.8 / 3 + 0.01
    assert report['processed'] >= 0.8 * PAIRS
    assert report['frames_sent'] == report['processed'] + report['dropped'] + report['unmatched']


def test_demo_without_weights_ends_with_status_2_and_the_sentence(bag, tmp_path, capsys):
    words = ['--bag', str(bag), '--out', str(tmp_path), '--weights', str(tmp_path / 'absent')]
    words += ['--domain-id', str(domain_of('no weights'))]
    assert demo.main(words) == 2
    error = capsys.readouterr().err
    assert 'cannot configure' in error
    assert str(tmp_path / 'absent') in error
    assert len(error.splitlines()) == 1
    assert os.path.exists(tmp_path / 'logs' / 'node.log')


def test_parameters_of_the_demo_reach_the_node(bag, tmp_path, capsys):
    words = ['--bag', str(bag), '--out', str(tmp_path), '-p', 'device:=abacus']
    words += ['-p', 'flip_test:=true', '--domain-id', str(domain_of('parameters'))]
    assert demo.main(words) == 2
    error = capsys.readouterr().err
    assert 'abacus' in error
    assert len(error.splitlines()) == 1


def test_parameter_without_a_value_is_refused(bag, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        demo.main(['--bag', str(bag), '--out', str(tmp_path), '-p', 'flip_test=true'])
    assert ended.value.code == 2
    assert "'flip_test=true': expected NAME:=VALUE" in capsys.readouterr().err


def test_report_with_a_hole_is_a_problem():
    whole = {
        'poses_published': 3,
        'frames_sent': 5,
        'processed': 3,
        'dropped': 1,
        'unmatched': 1,
        'accuracy': {'JDR': {'crop_side': 0.5}},
    }
    assert problems(whole) == []
    assert problems(whole | {'poses_published': 0}) == ['no poses came out']
    assert problems(whole | {'dropped': 0}) == ['5 pairs were sent but 4 are accounted for']
    holed = whole | {'accuracy': {'JDR': {'crop_side': None}}}
    assert problems(holed) == ['not finite: accuracy.JDR.crop_side']
