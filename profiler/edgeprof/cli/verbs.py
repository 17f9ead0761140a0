"""The commands and their help lines, known without importing the module of any command."""

from __future__ import annotations

#: The description in ``edgeprof --help``.
ABOUT = "Joules per inference, with their uncertainty, of a model on this device."

#: The last line of ``edgeprof --help``.
EPILOG = "Plugins may add commands; edgeprof plugins list shows which."

#: Command → its help line, which fits an 80-column terminal; edgeprof.cli.<name> holds the ``command``.
VERBS = {
    "bench": "Measure latency, joules, memory and accuracy of models.",
    "calibrate": "Compare the sensors with a meter, and correct their readings.",
    "choose": "Choose a model and hardware that meet the requirements.",
    "compare": "Compare two results: ratios, intervals and a verdict.",
    "completion": "Print the shell's completion script.",
    "compress": "Make compressed variants of a model, checked to load and run.",
    "dashboards": "Write Grafana dashboards, Prometheus rules and scrape targets.",
    "diagnose": "Explain why a variant is no faster, smaller or less accurate.",
    "doctor": "Show what works, what does not, and how to repair it.",
    "exporter": "Run the daemon that samples, integrates and serves Prometheus.",
    "fleet": "Run the same bench or study on many devices.",
    "gate": "Check a result against limits, for continuous integration.",
    "history": "List and show past results of this device.",
    "plot": "Draw one chart of results as a picture, for papers and slides.",
    "plugins": "List, check and write plugins.",
    "report": "Write results as one self-contained HTML page.",
    "run": "Measure energy, power and peak memory of any command.",
    "sensors": "Show every channel, its value, role and provenance.",
    "simulate": "Simulate a board, to try edgeprof without hardware.",
    "sweep": "Run a whole study from one file, and recommend a variant.",
    "top": "Show rails, load and temperatures live in the terminal.",
}

#: Commands that programs call and that no help lists; edgeprof.cli.<name> holds the ``command`` of each.
HIDDEN = frozenset({"door"})

#: Commands that one of our own plugins registers → that plugin; for such a command no other plugin is loaded.
BUNDLED = {
    "dashboards": "dashboards",
    "exporter": "exporter",
}

#: Names that no other plugin may give to a command.
RESERVED = (frozenset(VERBS) | HIDDEN) - frozenset(BUNDLED)
