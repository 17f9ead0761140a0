/* A stand-in for libcudart and libcuda on a machine without a GPU: the functions, arguments and results of the C API,
   with the host's memory for the device's. Copies to the host happen when the stream or a later event is waited for and
   not before, as on a real device; work that is captured runs when its graph is launched.
   Environment: STANDIN_CUDA_VERSION, STANDIN_DRIVER_VERSION, STANDIN_CU_INIT, STANDIN_GPUS, STANDIN_COMPUTE (87),
   STANDIN_MEMORY (bytes). */
#define _POSIX_C_SOURCE 200809L
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef void (*host_fn)(void *);
typedef struct { host_fn fn[64]; void *data[64]; int count; } graph_t;
typedef struct { void *dst[64]; const void *src[64]; size_t size[64]; int count; graph_t *capture; } stream_t;
typedef struct { struct timespec at; stream_t *stream; int recorded; } event_t;

static size_t used = 0;
static int context = 0;
static long number(const char *name, long otherwise) {
    const char *text = getenv(name);
    return text ? atol(text) : otherwise;
}
static size_t total(void) { return (size_t)number("STANDIN_MEMORY", 1L << 30); }
static void settle(stream_t *s) {
    for (int i = 0; i < s->count; i++) memcpy(s->dst[i], s->src[i], s->size[i]);
    s->count = 0;
}

int cuInit(unsigned flags) { return (int)number("STANDIN_CU_INIT", 0); }
int cuDriverGetVersion(int *out) { *out = (int)number("STANDIN_DRIVER_VERSION", 13000); return 0; }
int cuDeviceGetCount(int *out) { *out = (int)number("STANDIN_GPUS", 1); return 0; }
int cuDeviceGet(int *out, int ordinal) { *out = ordinal; return 0; }
int cuDeviceGetName(char *out, int size, int device) { strncpy(out, "Stand-in GPU", (size_t)size); return 0; }
int cuDeviceGetAttribute(int *out, int attribute, int device) {
    long compute = number("STANDIN_COMPUTE", 87);
    *out = attribute == 75 ? (int)(compute / 10) : attribute == 76 ? (int)(compute % 10) : 0;
    return 0;
}

const char *cudaGetErrorString(int code) {
    switch (code) {
    case 2: return "out of memory";
    case 35: return "CUDA driver version is insufficient for CUDA runtime version";
    case 101: return "invalid device ordinal";
    case 708: return "cannot set while device is active in this process";
    case 900: return "operation not permitted when stream is capturing";
    default: return "unknown error";
    }
}
int cudaRuntimeGetVersion(int *out) { *out = (int)number("STANDIN_CUDA_VERSION", 12040); return 0; }
int cudaSetDeviceFlags(unsigned flags) { return context ? 708 : 0; }
int cudaSetDevice(int device) {
    if (number("STANDIN_DRIVER_VERSION", 13000) < number("STANDIN_CUDA_VERSION", 12040)) return 35;
    return device < number("STANDIN_GPUS", 1) ? 0 : 101;
}
int cudaMalloc(void **out, size_t size) {
    if (used + size > total()) return 2;
    size_t *block = malloc(size + 16);
    block[0] = size;
    used += size;
    *out = (char *)block + 16;
    return 0;
}
int cudaFree(void *address) {
    context = 1;
    if (!address) return 0;
    size_t *block = (size_t *)((char *)address - 16);
    used -= block[0];
    memset(address, 0xEE, block[0]);
    free(block);
    return 0;
}
int cudaHostAlloc(void **out, size_t size, unsigned flags) { *out = calloc(1, size); return 0; }
int cudaFreeHost(void *address) { free(address); return 0; }
int cudaMemGetInfo(size_t *free_bytes, size_t *all) { *all = total(); *free_bytes = total() - used; return 0; }
int cudaStreamCreateWithFlags(void **out, unsigned flags) { *out = calloc(1, sizeof(stream_t)); return 0; }
int cudaStreamDestroy(void *s) { free(s); return 0; }
int cudaStreamSynchronize(void *s) {
    if (((stream_t *)s)->capture) return 900;
    settle(s);
    return 0;
}
int cudaMemcpyAsync(void *dst, const void *src, size_t size, int kind, void *handle) {
    stream_t *s = handle;
    if (kind == 1) { memcpy(dst, src, size); return 0; }
    if (s->count == 64) settle(s);
    s->dst[s->count] = dst; s->src[s->count] = src; s->size[s->count++] = size;
    return 0;
}
int cudaLaunchHostFunc(void *handle, host_fn fn, void *data) {
    stream_t *s = handle;
    if (!s->capture) { fn(data); return 0; }
    s->capture->fn[s->capture->count] = fn;
    s->capture->data[s->capture->count++] = data;
    return 0;
}
int cudaEventCreate(void **out) { *out = calloc(1, sizeof(event_t)); return 0; }
int cudaEventDestroy(void *event) { free(event); return 0; }
int cudaEventRecord(void *event, void *stream) {
    event_t *e = event;
    clock_gettime(CLOCK_MONOTONIC, &e->at);
    e->stream = stream;
    e->recorded = 1;
    return 0;
}
int cudaEventSynchronize(void *event) {
    event_t *e = event;
    if (e->recorded) settle(e->stream);
    return 0;
}
int cudaEventElapsedTime(float *out, void *first, void *second) {
    event_t *a = first, *b = second;
    if (!a->recorded || !b->recorded) return 400;
    *out = (float)((b->at.tv_sec - a->at.tv_sec) * 1e3 + (b->at.tv_nsec - a->at.tv_nsec) * 1e-6);
    return 0;
}
int cudaStreamBeginCapture(void *s, int mode) { ((stream_t *)s)->capture = calloc(1, sizeof(graph_t)); return 0; }
int cudaStreamEndCapture(void *s, void **out) {
    *out = ((stream_t *)s)->capture;
    ((stream_t *)s)->capture = NULL;
    return 0;
}
/* Three arguments since CUDA 12, five before: the first two are the same. */
int cudaGraphInstantiate(void **out, void *graph, void *more, void *log, size_t size) {
    *out = malloc(sizeof(graph_t));
    memcpy(*out, graph, sizeof(graph_t));
    return 0;
}
int cudaGraphLaunch(void *exec, void *s) {
    graph_t *g = exec;
    for (int i = 0; i < g->count; i++) g->fn[i](g->data[i]);
    return 0;
}
int cudaGraphDestroy(void *graph) { free(graph); return 0; }
int cudaGraphExecDestroy(void *exec) { free(exec); return 0; }
