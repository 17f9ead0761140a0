"""Turn off the telemetry of libraries before they are loaded. Python 3.6 grammar: the worker uses it too.

A library that reports on its user sends data off the machine, writes into the user's home folder, and works in a thread
of its own while windows are measured.
"""

import os

#: Environment variables that turn off the reports of libraries which edgeprof or a model loads. ONNX Runtime's Linux
#: wheels have sent reports since 1.29; the library reads its variable once, when it is loaded, and its API's
#: disable_telemetry_events() does not stop the reports. The others are Olive's, Hugging Face's (litert-torch
#: brings it), and the one that several libraries agree on.
VARIABLES = {
    "ORT_DISABLE_TELEMETRY": "1",
    "OLIVE_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
}


def turn_off() -> None:
    """Set ``VARIABLES`` in this process and its child processes, except variables that the user has set."""
    for name, value in VARIABLES.items():
        os.environ.setdefault(name, value)
