"""RSB-Pose as a ROS 2 node: a stereo pair of images in, metric 3D skeletons out.

The messages are generated into a package of the same name; extending the path lets Python find
rsb_pose_ros.msg beside the modules of the source tree.
"""

from pkgutil import extend_path

__path__ = extend_path(__path__, __name__)
