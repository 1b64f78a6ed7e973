"""Whole jobs, from ids or paths to a model on disk with evidence. What the command line calls."""
