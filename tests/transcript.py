"""What MLCommons' device API with its ic01 submission answered, command by command (QEMU, mps2-an385)."""

BOOT = "m-timestamp-mode-performance\r\nm-lap-us-9\r\nm-init-done\r\nm-ready\r\n"

#: Command without its ``%`` → what was answered.
TRANSCRIPT = [
    ("name", "m-name-dut-[unspecified]\r\nm-ready\r\n"),
    ("profile", "m-profile-[ULPMark for tinyML Firmware V0.0.1]\r\nm-model-[ic01]\r\nm-ready\r\n"),
    ("timestamp", "m-lap-us-557299\r\nm-ready\r\n"),
    ("results", "m-results-[" + ",".join(["0.500"] * 10) + "]\r\nm-ready\r\n"),
    ("foo", "e-[Unknown command: foo]\r\nm-ready\r\n"),
    ("NAME", "e-[Unknown command: NAME]\r\nm-ready\r\n"),
    ("name\r\n", "e-[Unknown command: name\r\n]\r\nm-ready\r\n"),
    ("", "e-[Unknown command: (null)]\r\nm-ready\r\n"),
    ("db load 4", "m-[Expecting 4 bytes]\r\nm-ready\r\n"),
    ("db 0102", "m-ready\r\n"),
    ("db 0304", "m-load-done\r\nm-ready\r\n"),
    ("db print", "m-buffer-01-02-03-04\r\n\r\nm-ready\r\n"),
    ("db 0g", "e-[Invalid hex digit '0g']\r\nm-ready\r\n"),
    ("db 123", "e-[Insufficent number of hex digits]\r\nm-ready\r\n"),
    ("db", "e-[Command 'db' requires a subcommand]\r\nm-ready\r\n"),
    ("db load", "e-[Command 'db load' requires the # of bytes]\r\nm-ready\r\n"),
    ("db load 0", "e-[Command 'db load' must be >0 bytes]\r\nm-ready\r\n"),
    ("db load 40000", "Supplied buffer size 40000 exceeds maximum of 3072\nm-ready\r\n"),
    ("infer 0", "e-[Inference iterations must be >0]\r\nm-ready\r\n"),
    ("infer x", "e-[Inference iterations must be >0]\r\nm-ready\r\n"),
    ("infer 1 -1", "e-[Inference warmup must be >=0]\r\nm-ready\r\n"),
    (
        "infer 1 0",
        (
            "Input db has 2 elemented, expected 3072\nm-warmup-start-0\r\nm-warmup-done\r\nm-infer-start-1\r\n"
            "m-lap-us-7449431\r\nm-lap-us-11617323\r\nm-infer-done\r\n"
            "m-results-[0.973,0.000,0.000,0.000,0.000,0.027,0.000,0.000,0.000,0.000]\r\nm-ready\r\n"
        ),
    ),
    (
        "infer 1 1",
        (
            "m-warmup-start-1\r\nm-warmup-done\r\nm-infer-start-1\r\nm-lap-us-11617323\r\nm-lap-us-19066658\r\n"
            "m-infer-done\r\nm-results-[0.000,0.000,0.965,0.020,0.000,0.000,0.012,0.000,0.000,0.000]\r\nm-ready\r\n"
        ),
    ),
]
