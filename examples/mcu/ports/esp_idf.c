/* ESP-IDF 5: a component with this file, edgeprof_mcu.c and your model; UART 0 at 115200 baud. Turn the log off
 * (CONFIG_LOG_DEFAULT_LEVEL_NONE), or give the console another port: its lines would stand among the answers. */
#include "driver/gpio.h"
#include "driver/uart.h"
#include "esp_timer.h"

#include "edgeprof_mcu.h"
#include "model.h"

#define PIN GPIO_NUM_4

static uint32_t microseconds(void) { return (uint32_t)esp_timer_get_time(); }
static void send_byte(uint8_t byte) { uart_write_bytes(UART_NUM_0, &byte, 1); }
static void set_pin(int level) { gpio_set_level(PIN, level); }

static const edgeprof_mcu_t firmware = {
    .name = "esp32",
    .model = "linear",
    .input = "1x64:uint8",
    .buffer = model_input,
    .input_bytes = MODEL_BYTES,
    .results = model_results,
    .classes = MODEL_CLASSES,
    .infer = model_infer,
    .microseconds = microseconds,
    .send = send_byte,
    .pin = set_pin,
};

void app_main(void) {
    const uart_config_t line = {
        .baud_rate = 115200, .data_bits = UART_DATA_8_BITS, .parity = UART_PARITY_DISABLE, .stop_bits = UART_STOP_BITS_1,
    };
    uart_driver_install(UART_NUM_0, 512, 0, 0, NULL, 0);
    uart_param_config(UART_NUM_0, &line);
    gpio_set_direction(PIN, GPIO_MODE_OUTPUT);
    edgeprof_mcu_begin(&firmware);
    for (;;) {
        uint8_t byte;
        if (uart_read_bytes(UART_NUM_0, &byte, 1, portMAX_DELAY) == 1) edgeprof_mcu_receive(byte);
    }
}
