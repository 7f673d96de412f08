"""Images between OpenCV and ROS with the names and behaviour of ROS 2 Jazzy's cv_bridge 4.1.

A stand-in for installations of ROS 2 from PyPI, which has no wheel of cv_bridge.
"""

from cv_bridge.conversion import getCvType
from cv_bridge.core import CvBridge, CvBridgeError

__all__ = ['CvBridge', 'CvBridgeError', 'getCvType']
