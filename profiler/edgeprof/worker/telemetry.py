"""Turn off the telemetry of libraries before they are loaded. Python 3.6 grammar: the worker uses it too.

A library that reports on its user sends data off the machine, writes into the user's home folder, and works in a thread
of its own while windows are measured.
"""

import os
import sys

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


#: Libraries that do nothing but report, and that others do without where they cannot be imported. OpenVINO's has no
#: variable, and ``import openvino`` alone sends an event.
LIBRARIES = ("openvino_telemetry",)


def turn_off() -> None:
    """Set ``VARIABLES`` here and in child processes, except those that the user has set, and keep ``LIBRARIES`` out."""
    for name, value in VARIABLES.items():
        os.environ.setdefault(name, value)
    for name in LIBRARIES:
        sys.modules.setdefault(name, None)  # type: ignore[arg-type] # as the import system marks what must not be found
