"""Published data sets, read from their original files into rectified stereo pairs."""
