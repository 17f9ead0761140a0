"""A meter on a virtual board: says the true joules of the board's total, as a scale of its own shows them.

    truth_meter.py TREE GAIN OFFSET_W [FILE.csv]

Lines of the meter's protocol to standard output, or a record with columns time (Unix seconds) and watts.
"""

import json
import sys
import time
from pathlib import Path


def follow(path):
    with path.open() as log:
        log.readline()
        rest = ""
        while True:
            rest += log.readline()
            if rest.endswith("\n"):
                row = json.loads(rest)
                rest = ""
                yield row["t"], row["total"]
            else:
                time.sleep(0.02)


def main(tree, gain, offset, record=None):
    gain, offset = float(gain), float(offset)
    file = Path(record).open("w") if record else None  # noqa: SIM115 - until this is killed
    if file:
        print("time,watts", file=file, flush=True)
    else:
        print("#edgeprof name=truth covers=wall gain=0.1% interval=0.1", flush=True)
    before = None
    for at, joules in follow(Path(tree) / "truth.jsonl"):
        if file and before is not None:
            watts = gain * (joules - before[1]) / (at - before[0]) + offset
            print(f"{(at + before[0]) / 2 + time.time() - time.monotonic():.6f},{watts:.5f}", file=file, flush=True)
        elif not file:
            print(f"t={at:.6f} J={gain * joules + offset * at:.6f}", flush=True)
        before = at, joules


if __name__ == "__main__":
    main(*sys.argv[1:])
