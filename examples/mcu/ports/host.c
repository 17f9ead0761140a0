/* A program on a PC as the device: standard input and output are its serial line. */
#include <stdio.h>
#include <time.h>

#include "../edgeprof_mcu.h"
#include "../model.h"

static uint32_t microseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint32_t)((uint64_t)now.tv_sec * 1000000u + (uint64_t)now.tv_nsec / 1000u);
}

static void send_byte(uint8_t byte) {
    putchar(byte);
    if (byte == '\n') fflush(stdout);
}

int main(void) {
    static const edgeprof_mcu_t firmware = {
        .name = "host",
        .model = "linear",
        .input = "1x64:uint8",
        .buffer = model_input,
        .input_bytes = MODEL_BYTES,
        .results = model_results,
        .classes = MODEL_CLASSES,
        .infer = model_infer,
        .microseconds = microseconds,
        .send = send_byte,
        .ram_bytes = sizeof model_input + sizeof model_results,
    };
    edgeprof_mcu_begin(&firmware);
    for (int byte = getchar(); byte != EOF; byte = getchar()) edgeprof_mcu_receive((uint8_t)byte);
    return 0;
}
