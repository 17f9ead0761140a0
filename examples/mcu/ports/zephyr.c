/* Zephyr 3.4 or later: CONFIG_SERIAL=y, CONFIG_CONSOLE=n (its lines would stand among the answers). */
#include <zephyr/device.h>
#include <zephyr/drivers/uart.h>
#include <zephyr/kernel.h>

#include "edgeprof_mcu.h"
#include "model.h"

static const struct device *const line = DEVICE_DT_GET(DT_CHOSEN(zephyr_console));

static uint32_t microseconds(void) { return (uint32_t)k_ticks_to_us_floor64((uint64_t)k_uptime_ticks()); }
static void send_byte(uint8_t byte) { uart_poll_out(line, byte); }

static const edgeprof_mcu_t firmware = {
    .name = CONFIG_BOARD,
    .model = "linear",
    .input = "1x64:uint8",
    .buffer = model_input,
    .input_bytes = MODEL_BYTES,
    .results = model_results,
    .classes = MODEL_CLASSES,
    .infer = model_infer,
    .microseconds = microseconds,
    .send = send_byte,
};

int main(void) {
    unsigned char byte;
    edgeprof_mcu_begin(&firmware);
    for (;;)
        if (uart_poll_in(line, &byte) == 0) edgeprof_mcu_receive(byte);
}
