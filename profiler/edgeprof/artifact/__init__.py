"""Recognise a model file by its content first and its suffix second, without loading it."""

from edgeprof.artifact.artifact import Artifact
from edgeprof.artifact.formats import FORMATS, Format
from edgeprof.artifact.recognition import recognise, unsupported

__all__ = ["FORMATS", "Artifact", "Format", "recognise", "unsupported"]
