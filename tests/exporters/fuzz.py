"""Atheris over one of the targets of ``fuzzing``.

    pip install atheris
    python -m tests.exporters.fuzz datagram --seconds 120

An input that a target does not hold is written beside the corpus as ``crash-…``.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--corpus", type=Path, help="where inputs are kept from run to run")
    options = parser.parse_args()
    import atheris

    with atheris.instrument_imports(include=["edgeprof", "edgeprof_exporters", "yaml"]):
        from tests.exporters.fuzzing import TARGETS, mutated

    if options.target not in TARGETS:
        parser.error(f"a target is one of {', '.join(TARGETS)}")
    function, seeds = TARGETS[options.target]
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as scratch:
        corpus = options.corpus or Path(scratch)
        corpus.mkdir(parents=True, exist_ok=True)
        for number, data in enumerate([*seeds(), *mutated(seeds(), 200)]):
            (corpus / f"seed-{number}").write_bytes(data)
        limits = [f"-max_total_time={options.seconds}", "-max_len=8192", "-timeout=10", f"-artifact_prefix={corpus}-"]
        atheris.Setup([sys.argv[0], *limits, str(corpus)], function)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
