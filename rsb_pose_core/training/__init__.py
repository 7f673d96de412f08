"""Training RSB-Pose: data, augmentation, losses and the loop."""
