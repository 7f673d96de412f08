"""Rendering of dressed people seen by a stereo head: training pairs with exact labels, and films."""
