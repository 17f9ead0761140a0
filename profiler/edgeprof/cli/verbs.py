"""The verbs and their help lines, known without importing the module of any."""

from __future__ import annotations

#: What ``edgeprof --help`` says edgeprof is.
ABOUT = "Joules per inference, with their uncertainty, of a model on this device."

#: What it says last.
EPILOG = "Plugins may add commands; edgeprof plugins list shows which."

#: verb → its help line; edgeprof.cli.<verb> holds its ``command``. Each fits one line of an 80-column terminal.
VERBS = {
    "bench": "Latency, joules, memory and accuracy of models on this device.",
    "calibrate": "Hold the sensors against a meter, and keep what they are off by.",
    "choose": "Which model on which hardware, from requirements.",
    "compare": "Ratios of two results with their intervals, and a verdict.",
    "completion": "Print the shell's completion script.",
    "compress": "Compressed variants of a model, checked to load and to answer.",
    "dashboards": "Grafana dashboards, Prometheus rules and scrape configuration.",
    "diagnose": "Why a variant is no faster, no smaller or no longer accurate.",
    "doctor": "What works, what does not, why, and the command that mends it.",
    "exporter": "The long-running daemon: samples, integrates, serves Prometheus.",
    "fleet": "The same bench or study on many devices.",
    "gate": "Pass or fail a result against limits, for CI.",
    "history": "Past results on this device.",
    "plot": "One chart of results as a picture, for papers and slides.",
    "plugins": "Installed plugins; conformance check; scaffold.",
    "report": "One self-contained HTML page of results.",
    "run": "Energy, power and peak memory of any command.",
    "sensors": "Every channel found, its value, role and provenance.",
    "simulate": "A live, virtual board, for trying edgeprof without hardware.",
    "sweep": "A whole study from one file, and which variant to ship.",
    "top": "Live view of rails, load and temperatures in the terminal.",
}

#: Verbs that programs call and no help lists; edgeprof.cli.<verb> holds the ``command`` of each.
HIDDEN = frozenset({"door"})

#: Those of VERBS that a plugin of ours brings (``register_commands``): verb → the plugin, which alone is loaded for it.
BUNDLED = {
    "dashboards": "dashboards",
    "exporter": "exporter",
}

#: What no other plugin may call a verb of its own.
RESERVED = (frozenset(VERBS) | HIDDEN) - frozenset(BUNDLED)
