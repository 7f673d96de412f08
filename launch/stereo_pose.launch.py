"""Start the node stereo_pose on a stereo camera.

ros2 launch rsb_pose_ros stereo_pose.launch.py left_namespace:=/camera/left \
    right_namespace:=/camera/right
"""

from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterFile, ParameterValue
from launch_ros.substitutions import FindPackageShare

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity

_SHARE = FindPackageShare('rsb_pose_ros')
# Image-sized blocks stay in the allocator instead of being mapped and zeroed for every image.
_MALLOC_BYTES = '536870912'

_ARGUMENTS = {
    'left_namespace': ('left', 'namespace of the left camera: image_raw and camera_info'),
    'right_namespace': ('right', 'namespace of the right camera'),
    'node_name': ('stereo_pose', 'name of the node'),
    'params_file': (
        PathJoinSubstitution([_SHARE, 'config', 'stereo_pose.yaml']),
        'parameter file; the arguments that are set here override it',
    ),
    'image_name': (
        '',
        'name of the images in the namespaces, such as image_rect_raw; empty: image_raw, or '
        'image_rect with input_rectified',
    ),
    'approximate_sync': ('', 'true: pair stamps that differ by up to slop_s'),
    'queue_size': ('', 'images of each camera that wait for their partner'),
    'image_transport': ('', 'raw or compressed'),
    'input_rectified': ('', 'true: take image_rect, which is rectified already'),
    'weights': ('', 'weights file; empty: those of the package'),
    'device': ('', 'auto, cpu or cuda'),
    'flip_test': ('', 'true: look at the mirrored pair too, for twice the work'),
    'use_sim_time': ('false', 'take the time from /clock'),
    'rviz': ('false', 'start RViz with markers, frames and overlay'),
    'rviz_config': (
        PathJoinSubstitution([_SHARE, 'config', 'rviz', 'stereo_pose.rviz']),
        'configuration of RViz',
    ),
    'fixed_frame': (
        'left_optical_frame',
        "fixed frame of RViz: the frame_id of the left camera's images",
    ),
    'log_level': ('info', 'debug, info, warn, error or fatal'),
    'fastdds_profile': (
        PathJoinSubstitution([_SHARE, 'config', 'fastdds_shm.xml']),
        'Fast DDS profile with a shared-memory segment for images; empty: leave the environment',
    ),
}
# Arguments that are parameters of the node, with their types; empty: the file's value counts.
_PARAMETERS = {
    'approximate_sync': bool,
    'queue_size': int,
    'image_transport': str,
    'input_rectified': bool,
    'weights': str,
    'device': str,
    'flip_test': bool,
}


def _start_node(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """The node, with the parameters that were set on the command line, and its remappings."""
    overrides = {
        name: ParameterValue(LaunchConfiguration(name), value_type=kind)
        for name, kind in _PARAMETERS.items()
        if context.launch_configurations[name]
    }
    overrides['use_sim_time'] = ParameterValue(
        LaunchConfiguration('use_sim_time'), value_type=bool
    )
    name = LaunchConfiguration('image_name').perform(context)
    topics = {'camera_info': 'camera_info'}
    for ours in ('image_raw', 'image_rect'):  # remapping these does not reach /compressed
        topics |= {ours: name or ours, f'{ours}/compressed': f'{name or ours}/compressed'}
    remappings = [
        (f'{view}/{ours}', [LaunchConfiguration(f'{view}_namespace'), f'/{theirs}'])
        for view in ('left', 'right')
        for ours, theirs in topics.items()
    ]
    profile = LaunchConfiguration('fastdds_profile').perform(context)
    return [
        Node(
            package='rsb_pose_ros',
            executable='stereo_pose',
            name=LaunchConfiguration('node_name'),
            output='screen',
            emulate_tty=True,
            parameters=[
                ParameterFile(LaunchConfiguration('params_file'), allow_substs=True),
                overrides,
            ],
            remappings=remappings,
            ros_arguments=['--log-level', LaunchConfiguration('log_level')],
            additional_env={
                'MALLOC_MMAP_THRESHOLD_': _MALLOC_BYTES,
                'MALLOC_TRIM_THRESHOLD_': _MALLOC_BYTES,
                **({'FASTRTPS_DEFAULT_PROFILES_FILE': profile} if profile else {}),
            },
        )
    ]


def generate_launch_description() -> LaunchDescription:
    """Arguments, node and, where it is asked for, RViz."""
    return LaunchDescription(
        [
            *(
                DeclareLaunchArgument(name, default_value=default, description=description)
                for name, (default, description) in _ARGUMENTS.items()
            ),
            OpaqueFunction(function=_start_node),
            Node(
                package='rviz2',
                executable='rviz2',
                name='rviz2',
                arguments=[
                    '-d',
                    LaunchConfiguration('rviz_config'),
                    '-f',
                    LaunchConfiguration('fixed_frame'),
                ],
                remappings=[
                    (f'/stereo_pose/{topic}', [LaunchConfiguration('node_name'), f'/{topic}'])
                    for topic in ('markers', 'overlay')
                ],
                parameters=[
                    {
                        'use_sim_time': ParameterValue(
                            LaunchConfiguration('use_sim_time'), value_type=bool
                        )
                    }
                ],
                condition=IfCondition(LaunchConfiguration('rviz')),
            ),
        ]
    )
