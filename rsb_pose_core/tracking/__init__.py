"""Following people, telling them from ghosts, and filtering their joints."""

from rsb_pose_core.tracking.gate import PersonGate
from rsb_pose_core.tracking.one_euro import OneEuroFilter, OneEuroSettings
from rsb_pose_core.tracking.tracker import Track, Tracker, TrackerSettings

__all__ = [
    'OneEuroFilter',
    'OneEuroSettings',
    'PersonGate',
    'Track',
    'Tracker',
    'TrackerSettings',
]
