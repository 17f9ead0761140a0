"""Run a .tflite file once by tflite-micro, which prints the plan of its arena: ``microcontroller_plan.py FILE``.

This is a separate script for a separate process, and imports nothing of edgeprof. Python 3.6 grammar.
"""

import sys

#: Size of the arena (bytes); that of a microcontroller is some hundred thousand.
ARENA = 256 << 20


def main(path: str) -> None:
    """Load and run the model once, and print its plan to stderr."""
    import numpy as np
    from tflite_micro.python.tflite_micro import runtime

    interpreter = runtime.Interpreter.from_file(path, arena_size=ARENA)
    number = 0
    while True:
        try:
            details = interpreter.get_input_details(number)
        except (IndexError, ValueError, RuntimeError):  # there are no more
            break
        interpreter.set_input(np.zeros(details["shape"], details["dtype"]), number)
        number += 1
    interpreter.invoke()
    interpreter.print_allocations()


if __name__ == "__main__":
    # Otherwise imports would find this folder first, whose files have the names of common modules.
    del sys.path[0]
    main(sys.argv[1])
