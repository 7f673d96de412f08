"""How strong the faults of cameras are: for training, for test sets, and none at all."""

from dataclasses import dataclass, replace

Range = tuple[float, float]


@dataclass(frozen=True)
class Levels:
    """How strong each fault is; ranges are drawn from uniformly unless said otherwise.

    Deviations are of normal distributions, `unequal` ones between the two cameras of a pair.
    Light is linear and 1 at saturation; px are those of the image before a crop is resized.
    """

    # exposure and colour
    exposure_ev: float = 0.5  # deviation of auto exposure, stops
    unequal_ev: float = 0.1
    separate_share: float = 0.3  # of pairs whose cameras meter each for itself
    saturated_share: float = 0.06  # of pairs 1 to 2 stops too bright
    white_balance: float = 0.06  # deviation of the log of each channel's gain
    unequal_balance: float = 0.02
    colour_mix: float = 0.035  # deviation of the entries of the colour matrix
    unequal_mix: float = 0.01
    # lens
    shading: Range = (0.0, 0.6)  # light falls off as 1 / (1 + shading tan^2)^2
    unequal_shading: float = 0.05
    veil: Range = (0.0, 0.08)  # share of the light that spreads over the whole picture
    bloom: Range = (0.0, 0.3)  # share of what exceeds saturation that spreads around
    dirt_share: float = 0.1  # of cameras
    dirt: float = 0.4  # largest loss of light
    blur_px: Range = (0.25, 0.9)  # log-uniform, deviation of a Gaussian
    defocus_share: float = 0.08  # of cameras
    defocus_px: Range = (0.8, 2.5)
    smear_share: float = 0.12  # of pairs, by shaking
    smear_px: Range = (0.5, 4.0)
    aberration_px: float = 0.25  # deviation of the shift of red and of blue
    # sensor: variance = shot_noise * light + read_noise^2
    shot_noise: Range = (5e-5, 2.5e-3)  # log-uniform
    read_noise: Range = (3e-4, 6e-3)  # log-uniform
    bayer_share: float = 0.75  # of colour pairs
    filter_overlap: Range = (0.0, 0.25)  # of the colour filters: undone at the price of noise
    row_noise: Range = (0.0, 1.5e-3)  # deviation of offsets of rows
    pattern_noise: Range = (0.0, 2.5e-3)  # of columns, mono only
    flicker_share: float = 0.08  # of pairs under lamps that make bands
    flicker: Range = (0.02, 0.12)
    hot_share: float = 0.15  # of cameras with hot pixels
    bits: tuple[int, int] = (8, 12)  # of the linear signal
    # processing
    knee: Range = (0.0, 1.2)  # compression of the lights
    gamma: float = 0.08  # deviation of the log of the curve's exponent
    s_curve: Range = (-0.1, 0.75)
    contrast: float = 0.1  # deviation of the log
    lift: float = 0.02  # deviation of the black level
    unequal_tone: float = 0.012
    local_contrast: Range = (-0.1, 0.35)
    saturation: float = 0.18  # deviation
    grey_share: float = 0.04  # of colour pairs published without colour
    sharpening: Range = (0.0, 1.2)
    coring: Range = (0.0, 0.03)  # detail below it is taken for noise and removed
    chroma_denoising: Range = (0.0, 1.0)
    # transport
    jpeg_share: float = 0.65  # of pairs
    quality: tuple[int, int] = (40, 97)


LEVELS = {
    'train': Levels(),
    # good cameras in good light, as those of a laboratory
    'mild': replace(
        Levels(), exposure_ev=0.2, unequal_ev=0.05, separate_share=0.0, saturated_share=0.0,
        white_balance=0.04, unequal_balance=0.015, colour_mix=0.02, shading=(0.0, 0.3),
        veil=(0.0, 0.03), bloom=(0.0, 0.1), dirt_share=0.0, blur_px=(0.3, 0.6), defocus_share=0.0,
        smear_share=0.0, aberration_px=0.1, shot_noise=(1e-4, 4e-4), read_noise=(5e-4, 1.5e-3),
        bayer_share=1.0, row_noise=(0.0, 3e-4), pattern_noise=(0.0, 1e-3), flicker_share=0.0,
        hot_share=0.0, bits=(10, 12), knee=(0.2, 0.6), gamma=0.03, s_curve=(0.0, 0.2),
        contrast=0.04, lift=0.005, unequal_tone=0.006, local_contrast=(0.0, 0.1), saturation=0.1,
        grey_share=0.0, sharpening=(0.2, 0.6), coring=(0.0, 0.006), chroma_denoising=(0.2, 0.6),
        jpeg_share=0.0,
    ),
    # no fault at all but the blur that a pixel's own width makes
    'clean': replace(
        Levels(), exposure_ev=0.0, unequal_ev=0.0, separate_share=0.0, saturated_share=0.0,
        white_balance=0.0, unequal_balance=0.0, colour_mix=0.0, unequal_mix=0.0,
        shading=(0.0, 0.0), unequal_shading=0.0, veil=(0.0, 0.0), bloom=(0.0, 0.0), dirt_share=0.0,
        blur_px=(0.35, 0.35), defocus_share=0.0, smear_share=0.0, aberration_px=0.0,
        shot_noise=(1e-9, 1e-9), read_noise=(1e-9, 1e-9), bayer_share=0.0,
        filter_overlap=(0.0, 0.0), row_noise=(0.0, 0.0), pattern_noise=(0.0, 0.0),
        flicker_share=0.0, hot_share=0.0, bits=(16, 16), knee=(0.3, 0.3), gamma=0.0,
        s_curve=(0.0, 0.0), contrast=0.0, lift=0.0, unequal_tone=0.0, local_contrast=(0.0, 0.0),
        saturation=0.0, grey_share=0.0, sharpening=(0.0, 0.0), coring=(0.0, 0.0),
        chroma_denoising=(0.0, 0.0), jpeg_share=0.0,
    ),
}  # fmt: skip
