"""Formats of labelled data, one file each."""
