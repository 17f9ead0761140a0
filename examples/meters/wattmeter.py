"""A bridge: from any meter that a few lines of Python can read to edgeprof's line protocol on standard output.

    edgeprof sensors --sensor "meter:command:python examples/meters/wattmeter.py /dev/hidraw0"

Replace ``readings`` by what your meter needs. This one has the shape that most take: a port that gives a line of text a
reading, here "volts;amperes;seconds".
"""

import sys
from pathlib import Path


def readings(path):
    """Yield (seconds, volts, amperes) as they come."""
    with Path(path).open(encoding="ascii") as port:
        for line in port:
            volts, amperes, seconds = line.strip().split(";")
            yield float(seconds), float(volts), float(amperes)


def main(path):
    # What the meter is, once: what it covers, its limits from the data sheet (as ±), how often it has something new.
    print("#edgeprof name=usb covers=board gain=0.5% offset=0.005 interval=0.1", flush=True)
    for seconds, volts, amperes in readings(path):
        # Flushed line by line: a reading that waits in a buffer arrives too late.
        print(f"t={seconds:.3f} V={volts:.4f} A={amperes:.4f}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
