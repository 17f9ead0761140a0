/* The model of the examples: a linear classifier with weights that a formula makes, so that any program can check it. */
#ifndef MODEL_H
#define MODEL_H

#include <stdint.h>

#define MODEL_BYTES 64u
#define MODEL_CLASSES 4u

extern uint8_t model_input[MODEL_BYTES];
extern float model_results[MODEL_CLASSES];

int model_infer(void);

#endif
