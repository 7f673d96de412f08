"""Camera models with the names and behaviour of ROS 2 Jazzy's image_geometry 4.1.

A stand-in for installations of ROS 2 from PyPI, which has no wheel of image_geometry.
"""

from image_geometry.cameramodels import PinholeCameraModel, StereoCameraModel

__all__ = ['PinholeCameraModel', 'StereoCameraModel']
