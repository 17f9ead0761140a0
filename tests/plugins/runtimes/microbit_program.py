"""For MicroPython on a micro:bit: MLPerf Tiny's serial protocol around a small classifier."""

import microbit
import utime

uart = microbit.uart
data = bytearray(0)
place = 0
results = [0, 0]


def say(line):
    uart.write(line + "\r\n")


def say_lap():
    say("m-lap-us-%d" % utime.ticks_us())


def say_results():
    say("m-results-[%.3f,%.3f]" % (results[0], results[1]))


def infer():
    a = b = 0
    for i in range(len(data)):
        x = data[i] - 128
        a += x * (i * 37 % 17 - 8)
        b -= x * ((i + 7) * 37 % 17 - 8)
    total = abs(a) + abs(b) + 1
    results[0] = abs(a) / total
    results[1] = abs(b) / total


def take(digits):
    global place
    for i in range(0, len(digits), 2):
        data[place] = int(digits[i : i + 2], 16)
        place += 1
    if place == len(data):
        say("m-load-done")


def run(count, warmups):
    say("m-warmup-start-%d" % warmups)
    for _ in range(warmups):
        infer()
    say("m-warmup-done")
    say("m-infer-start-%d" % count)
    say_lap()
    for _ in range(count):
        infer()
    say_lap()
    say("m-infer-done")
    say_results()


def answer(words):
    global data, place
    if words[0] == "name":
        say("m-name-dut-[microbit]")
    elif words[0] == "profile":
        say("m-profile-[MicroPython]")
        say("m-model-[toy01]")
        say("m-input-[1x64:uint8]")
    elif words[0] == "db" and words[1] == "load":
        data = bytearray(int(words[2]))
        place = 0
        say("m-[Expecting %d bytes]" % len(data))
    elif words[0] == "db":
        take(words[1])
    elif words[0] == "infer":
        run(int(words[1]), int(words[2]))
    else:
        say("e-[Unknown command: %s]" % words[0])
    say("m-ready")


say("m-timestamp-mode-performance")
say("m-ready")
command = ""
while True:
    byte = uart.read(1)
    if byte == b"%":
        answer(command.split(" "))
        command = ""
    elif byte:
        command += str(byte, "ascii")
