"""Run a .tflite file once by tflite-micro and have it print the plan of its arena: ``microcontroller_plan.py FILE``.

A script of its own, for a process of its own: it imports nothing of edgeprof. Python 3.6 grammar.
"""

import sys

#: Bytes that the arena may take here; a microcontroller has some hundred thousand.
ARENA = 256 << 20


def main(path: str) -> None:
    """Load and run the model once, and have its plan printed to stderr."""
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
    # This file's own folder would be found first, and its neighbours are named as common modules are.
    del sys.path[0]
    main(sys.argv[1])
