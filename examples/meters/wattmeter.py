"""A bridge from a meter that a few lines of Python can read to edgeprof's line protocol on standard output.

    edgeprof sensors --sensor "meter:command:python examples/meters/wattmeter.py /dev/hidraw0"

Replace ``readings`` by the code for your meter. This one is typical: a port gives one line of text for each reading,
here "volts;amperes;seconds".
"""

import sys
from pathlib import Path


def readings(path):
    """Yield (seconds, volts, amperes) as they arrive."""
    with Path(path).open(encoding="ascii") as port:
        for line in port:
            volts, amperes, seconds = line.strip().split(";")
            yield float(seconds), float(volts), float(amperes)


def main(path):
    # Describe the meter once: what it covers, its limits of error (±) from the data sheet, and its update interval.
    print("#edgeprof name=usb covers=board gain=0.5% offset=0.005 interval=0.1", flush=True)
    for seconds, volts, amperes in readings(path):
        # Flush each line: a reading that waits in a buffer arrives too late.
        print(f"t={seconds:.3f} V={volts:.4f} A={amperes:.4f}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
