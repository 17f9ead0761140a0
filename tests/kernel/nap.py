"""An inference of 10 ms exactly, on the guest's clock: what the bench inside the guest measures."""

import time


def nap() -> None:
    time.sleep(0.01)
