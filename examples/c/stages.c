/* Two stages a frame, for `edgeprof run -- ./stages 1000`. Build: cc -O2 -pthread stages.c -o stages */
#define _GNU_SOURCE
#include "edgeprof_stage.h"

static volatile double sink;

static void work(int rounds) {
  int i;
  for (i = 0; i < rounds; i++) sink += i * 1e-9;
}

int main(int argc, char **argv) {
  int frames = argc > 1 ? atoi(argv[1]) : 100, frame;
  edgeprof_stage decode = edgeprof_stage_named("decode"), detect = edgeprof_stage_named("detect");
  for (frame = 0; frame < frames; frame++) {
    uint64_t start = edgeprof_stage_begin();
    work(20000);
    edgeprof_stage_end(decode, start);
    start = edgeprof_stage_begin();
    work(100000);
    edgeprof_stage_end(detect, start);
  }
  return 0;
}
