"""``python -m edgeprof``."""

from __future__ import annotations

from edgeprof.cli.entry import main

main()
