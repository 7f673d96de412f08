"""Rendered people before a stereo head: training pairs with exact labels, and films."""
