"""Measured comparisons, run by hand: ratios between two ways on one machine in one run, never bare wall-clock."""
