"""RSB-Pose without ROS: stereo images of people in, metric 3D skeletons out."""
