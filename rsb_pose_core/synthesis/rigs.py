"""Stereo heads that people own, from their data sheets."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Mode:
    """One image size of a rig: pixels, and how long a rolling shutter runs down the image."""

    width: int
    height: int
    focal_px: float
    readout_s: float = 0.0

    @property
    def view_angle_deg(self) -> float:
        """Horizontal field of view."""
        return math.degrees(2 * math.atan(self.width / 2 / self.focal_px))


@dataclass(frozen=True)
class StereoRig:
    """A stereo head: the modes that its driver publishes, rectified."""

    name: str
    baseline_m: float
    modes: tuple[Mode, ...]
    mono: bool = False  # grey images: no Bayer pattern, infrared seen as well
    projector: bool = False  # of infrared dots
    convergence_m: float = math.inf  # depth at which the axes of the two images meet


RIGS = {
    rig.name: rig
    for rig in (
        # Stereolabs, ZED 2 data sheet: 120 mm, 2.12 mm lenses on OV4689 (2 um pixels, rolling
        # shutter), 2x2 and 4x4 binned below 1080 rows; line times of 44.8, 25.6, 25.6 and 31.5 us:
        # Stereolabs' support article 1500008922521 ("readout time of the ZED 2").
        StereoRig('zed2', 0.12, (
            Mode(2208, 1242, 1060.0, 1242 * 44.8e-6), Mode(1920, 1080, 1060.0, 1080 * 25.6e-6),
            Mode(1280, 720, 530.0, 720 * 25.6e-6), Mode(672, 376, 265.0, 376 * 31.5e-6),
        )),
        # Intel RealSense D400 series data sheet (337029): D430 and D450 modules, 1.93 mm lenses on
        # OV9282 (3 um, mono, global shutter), depth field of view 87 +- 3 by 58 +- 1 degrees at
        # 16:9, baselines 50 and 95 mm, infrared projector; 4:3 is scaled by the rows.
        *(
            StereoRig(name, baseline_m, (
                Mode(1280, 720, 1.93e3 / 3), Mode(848, 480, 1.93e3 / 3 * 848 / 1280),
                Mode(640, 480, 1.93e3 / 3 * 480 / 800), Mode(640, 360, 1.93e3 / 6),
            ), mono=True, projector=True)
            for name, baseline_m in (('d435', 0.05), ('d455', 0.095))
        ),
        # Luxonis, OAK-D spec sheet: 75 mm, OV9282 (3 um, mono, global shutter), 2.35 mm, 80 by 55
        # degrees, distortion below 1 %; 400 rows are binned, 720 cut out.
        StereoRig('oak-d', 0.075, (
            Mode(1280, 800, 2.35e3 / 3), Mode(1280, 720, 2.35e3 / 3), Mode(640, 400, 2.35e3 / 6),
        ), mono=True),
        # Ofli et al., Berkeley MHAD, WACV 2013: quads of Dragonfly2 (Bayer, global shutter); pairs
        # (1, 3) and (2, 4) of quad L1 have f 530-537 px and baselines of 226 and 221 mm.
        StereoRig('mhad-quad', 0.226, (Mode(640, 480, 533.0),)),
        # Ionescu et al., Human3.6M, TPAMI 2014: Basler piA1000 (global shutter), f about 1145 px.
        # Cameras 1 and 3 (2 and 4) stand 3.7 (3.8) m apart in its calibration ("approximately
        # 3000 mm" in the paper of RSB-Pose) and look at a point 5 m before their baseline.
        # The second mode is the images halved.
        StereoRig('h36m', 3.7, (Mode(1000, 1000, 1145.0), Mode(500, 500, 572.5)),
                  convergence_m=4.95),
    )
}  # fmt: skip
SHORT_RIGS = tuple(rig for name, rig in RIGS.items() if name != 'h36m')

# Sizes of free rigs: what drivers commonly publish.
FREE_SIZES = (
    (640, 480), (1280, 720), (1280, 800), (1920, 1080), (848, 480), (752, 480), (1024, 768),
    (640, 360), (1280, 960), (1440, 1080),
)  # fmt: skip
