"""The former address of :mod:`edgeprof.worker.runtime`, kept so that plugins written for edgeprof 0.1 go on working."""

from edgeprof.worker.runtime import *  # noqa: F403 - the whole contract, whatever it grows to
