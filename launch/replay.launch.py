"""Play a stereo bag into the node stereo_pose; everything ends when the bag is over.

ros2 launch rsb_pose_ros replay.launch.py bag:=samples/<bag> rviz:=true loops:=0
"""

from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    IncludeLaunchDescription,
    RegisterEventHandler,
)
from launch.event_handlers import OnProcessExit
from launch.events import Shutdown
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

from launch import LaunchDescription

_ARGUMENTS = {
    'bag': (None, 'folder of a rosbag2 recording, or its .mcap file'),
    'rate': ('1.0', 'speed, or auto: as fast as the node answers, at most 1'),
    'loops': ('1', 'how often; 0: until interrupted'),
    'left_namespace': ('/stereo/left', 'namespace of the left camera in the bag'),
    'right_namespace': ('/stereo/right', 'namespace of the right camera in the bag'),
    'image_transport': ('compressed', 'raw or compressed, as recorded'),
    'rviz': ('false', 'start RViz'),
    'fixed_frame': ('stereo_left_optical', 'fixed frame of RViz: that of the left images'),
}


def generate_launch_description() -> LaunchDescription:
    """The node as for a live camera, and the player beside it with its clock."""
    player = Node(
        package='rsb_pose_ros',
        executable='bag_player',
        output='screen',
        arguments=[
            LaunchConfiguration('bag'),
            '--rate',
            LaunchConfiguration('rate'),
            '--loops',
            LaunchConfiguration('loops'),
            '--left',
            LaunchConfiguration('left_namespace'),
            '--right',
            LaunchConfiguration('right_namespace'),
            '--clock',
        ],
        additional_env={  # images lie in the segment of who sends them
            'FASTRTPS_DEFAULT_PROFILES_FILE': PathJoinSubstitution(
                [FindPackageShare('rsb_pose_ros'), 'config', 'fastdds_shm.xml']
            )
        },
    )
    forwarded = ('left_namespace', 'right_namespace', 'image_transport', 'rviz', 'fixed_frame')
    node = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(
            PathJoinSubstitution(
                [FindPackageShare('rsb_pose_ros'), 'launch', 'stereo_pose.launch.py']
            )
        ),
        launch_arguments={
            **{name: LaunchConfiguration(name) for name in forwarded},
            'use_sim_time': 'true',
        }.items(),
    )
    return LaunchDescription(
        [
            *(
                DeclareLaunchArgument(name, default_value=default, description=description)
                for name, (default, description) in _ARGUMENTS.items()
            ),
            node,
            player,
            RegisterEventHandler(
                OnProcessExit(
                    target_action=player,
                    on_exit=[EmitEvent(event=Shutdown(reason='the bag is over'))],
                )
            ),
        ]
    )
