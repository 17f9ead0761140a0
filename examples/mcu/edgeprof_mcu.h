/* The serial protocol of MLPerf Tiny around a model of yours, so that edgeprof can measure it: edgeprof bench mcu:PORT
 *
 * Add edgeprof_mcu.c to your firmware, give it the functions below, and hand it every byte that comes over the serial
 * port. It allocates nothing, and needs neither an operating system nor the C library.
 */
#ifndef EDGEPROF_MCU_H
#define EDGEPROF_MCU_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What the harness needs of your firmware. */
typedef struct {
    const char *name;   /* of the device, as "nucleo-l4r5zi" */
    const char *model;  /* as "ic01"; any name of your own does as well */
    const char *input;  /* shape and type of an input, as "1x32x32x3:uint8" (uint8, int8 or float32) */

    uint8_t *buffer;      /* takes one input, which infer() copies to the model: many interpreters overwrite theirs */
    uint32_t input_bytes; /* how large it is */

    float *results;      /* takes the scores of an inference */
    uint32_t classes;    /* how many there are */

    /* Run one inference of the buffer and write the scores; 0, or any other number where it failed. */
    int (*infer)(void);
    /* Microseconds of a counter that runs through; it may wrap at 32 bits. */
    uint32_t (*microseconds)(void);
    /* Send one byte; wait until there is room for it. */
    void (*send)(uint8_t byte);
    /* Set a pin that a meter sees, 1 while inferences run; NULL where there is none. */
    void (*pin)(int level);

    /* Bytes that are known when you build it; 0: unknown. */
    uint32_t arena_bytes, flash_bytes, ram_bytes;
} edgeprof_mcu_t;

/* Say that the device has started. Call it once, when the serial port works. */
void edgeprof_mcu_begin(const edgeprof_mcu_t *firmware);

/* Take a byte from the serial port. A command is carried out within the call that brings its last byte. */
void edgeprof_mcu_receive(uint8_t byte);

#ifdef __cplusplus
}
#endif
#endif
