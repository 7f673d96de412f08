"""The checker that test/conftest.py runs on every signature of rsb_pose_core."""

from beartype import BeartypeConf, beartype

# an int where a float is expected is fine (PEP 484's numeric tower), as mypy says too
check = beartype(conf=BeartypeConf(is_pep484_tower=True))
