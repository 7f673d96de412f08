#!/usr/bin/env bash
# colcon build and colcon test of this package against the ROS in .venv, and a look at the result.
set -euo pipefail
cd "$(dirname "$0")/../.."

# CMake refuses to export targets that name a folder inside the source, as .venv is: hence a
# workspace in which the source is a link.
workspace=build/colcon
mkdir -p "$workspace/src"
ln -sfn "$PWD" "$workspace/src/rsb_pose_ros"
export PATH="$PWD/.venv/bin:$PATH" CMAKE_PREFIX_PATH="$PWD/.venv"
export ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST
cd "$workspace"

python -m colcon build --base-paths src \
  --cmake-args -G Ninja "-DPython3_EXECUTABLE=$(command -v python)" -DCMAKE_BUILD_TYPE=Release
python -m colcon test --base-paths src
python -m colcon test-result --verbose

set +u # colcon's scripts read variables that may not be set
# shellcheck disable=SC1091
source install/setup.bash
set -u
cd / # where nothing of the source tree can be imported by chance
python -c 'from rsb_pose_ros.msg import HumanPose3D; print(HumanPose3D.__module__, "is installed")'
