"""Scores on labelled data, one file each."""
