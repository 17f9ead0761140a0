/* Bare metal on Arm's MPS2 AN385 (Cortex-M3), as QEMU has it: -M mps2-an385.
 * CMSDK UART 0 at 0x40004000, CMSDK timer 0 at 0x40000000 (25 MHz, counts down). Source: Arm DDI 0479, DAI 0385. */
#include "../edgeprof_mcu.h"
#include "../model.h"

#define REGISTER(address) (*(volatile uint32_t *)(address))
#define UART_DATA REGISTER(0x40004000u)
#define UART_STATE REGISTER(0x40004004u)
#define UART_CTRL REGISTER(0x40004008u)
#define UART_BAUDDIV REGISTER(0x40004010u)
#define TIMER_CTRL REGISTER(0x40000000u)
#define TIMER_VALUE REGISTER(0x40000004u)
#define TIMER_RELOAD REGISTER(0x40000008u)
#define CLOCK_HZ 25000000u

extern uint32_t stack_top, data_load, data_start, data_end, bss_start, bss_end;

static uint32_t passed, before; /* microseconds, and the timer's ticks that make no whole one yet */

/* The timer wraps after 172 s: it must be asked more often than that, or a window of that length is told too short. */
static uint32_t microseconds(void) {
    uint32_t now = 0xffffffffu - TIMER_VALUE, ticks = now - before;
    passed += ticks / (CLOCK_HZ / 1000000u);
    before = now - ticks % (CLOCK_HZ / 1000000u);
    return passed;
}

static int infer(void) {
    microseconds(); /* often enough, see there */
    return model_infer();
}

static void send_byte(uint8_t byte) {
    while (UART_STATE & 1u) {} /* full */
    UART_DATA = byte;
}

static const edgeprof_mcu_t firmware = {
    .name = "mps2-an385",
    .model = "linear",
    .input = "1x64:uint8",
    .buffer = model_input,
    .input_bytes = MODEL_BYTES,
    .results = model_results,
    .classes = MODEL_CLASSES,
    .infer = infer,
    .microseconds = microseconds,
    .send = send_byte,
    .ram_bytes = sizeof model_input + sizeof model_results,
};

void reset(void) {
    for (uint32_t *from = &data_load, *to = &data_start; to < &data_end;) *to++ = *from++;
    for (uint32_t *to = &bss_start; to < &bss_end;) *to++ = 0;
    TIMER_RELOAD = TIMER_VALUE = 0xffffffffu;
    TIMER_CTRL = 1u;
    UART_BAUDDIV = CLOCK_HZ / 115200u;
    UART_CTRL = 3u; /* transmit and receive */
    edgeprof_mcu_begin(&firmware);
    for (;;)
        if (UART_STATE & 2u) edgeprof_mcu_receive((uint8_t)UART_DATA);
}

static void stop(void) {
    for (;;) {}
}

static const struct {
    uint32_t *stack;
    void (*handlers[15])(void);
} vectors __attribute__((section(".vectors"), used)) = {
    &stack_top, {reset, stop, stop, stop, stop, stop, 0, 0, 0, 0, stop, stop, 0, stop, stop},
};
