#include "model.h"

uint8_t model_input[MODEL_BYTES];
float model_results[MODEL_CLASSES];

/* score[c] = sum over i of (input[i] - 128) * (((7 i + 5 c) mod 17) - 8), shifted and scaled so that all add up to 1 */
int model_infer(void) {
    int32_t sums[MODEL_CLASSES], lowest = 0x7fffffff, total = 0;
    for (uint32_t c = 0; c < MODEL_CLASSES; ++c) {
        int32_t sum = 0;
        for (uint32_t i = 0; i < MODEL_BYTES; ++i)
            sum += ((int32_t)model_input[i] - 128) * (int32_t)((7u * i + 5u * c) % 17u) - 8 * ((int32_t)model_input[i] - 128);
        sums[c] = sum;
        if (sum < lowest) lowest = sum;
    }
    for (uint32_t c = 0; c < MODEL_CLASSES; ++c) total += sums[c] - lowest;
    for (uint32_t c = 0; c < MODEL_CLASSES; ++c)
        model_results[c] = total ? (float)(sums[c] - lowest) / (float)total : 1.0f / (float)MODEL_CLASSES;
    return 0;
}
