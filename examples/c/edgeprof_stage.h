/* edgeprof_stage.h: stages of a C or C++ program for `edgeprof run` and the edgeprof daemon.
 *
 *     edgeprof_stage detect = edgeprof_stage_named("detect");        // once
 *     uint64_t start = edgeprof_stage_begin();
 *     ...
 *     edgeprof_stage_end(detect, start);
 *
 * A stage that ends is 32 bytes in a ring in shared memory, as `edgeprof.stage` of Python writes them: two readings of the
 * clock, no system call, nothing to wait for. Without EDGEPROF_STAGES in the environment and without a daemon nothing is
 * written. Any thread may call. Linux, C11 or C++11 with GCC or Clang. A program that forks calls it in one process only.
 */
#ifndef EDGEPROF_STAGE_H
#define EDGEPROF_STAGE_H

#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { EDGEPROF_SLOTS = 8192, EDGEPROF_NAMES = 64, EDGEPROF_NAME_BYTES = 128, EDGEPROF_NAMES_AT = 64 };

typedef struct { uint64_t start, end; uint32_t name, thread; uint64_t number; } edgeprof_slot;
typedef struct {
  char magic[8];
  uint32_t slots, process;
  uint64_t next;
  uint32_t names;
} edgeprof_header;
typedef uint32_t edgeprof_stage;

static unsigned char *edgeprof_ring;
static pthread_once_t edgeprof_once = PTHREAD_ONCE_INIT;
static pthread_mutex_t edgeprof_lock = PTHREAD_MUTEX_INITIALIZER;

static uint64_t edgeprof_stage_begin(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void edgeprof_open(void) {
  const char *folder = getenv("EDGEPROF_STAGES");
  char path[4096];
  size_t size = EDGEPROF_NAMES_AT + EDGEPROF_NAMES * EDGEPROF_NAME_BYTES + EDGEPROF_SLOTS * sizeof(edgeprof_slot);
  edgeprof_header *header;
  void *map;
  int file;
  if (!folder) folder = "/run/edgeprof/stages";
  if (!*folder || snprintf(path, sizeof path, "%s/%d-%llx.stages", folder, (int)getpid(),
                           (unsigned long long)edgeprof_stage_begin()) >= (int)sizeof path)
    return;
  file = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0640);
  if (file < 0) return;
  map = posix_fallocate(file, 0, (off_t)size) ? MAP_FAILED
                                              : mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  close(file);
  if (map == MAP_FAILED) {
    unlink(path);
    return;
  }
  header = (edgeprof_header *)map;
  header->slots = EDGEPROF_SLOTS;
  header->process = (uint32_t)getpid();
  memcpy(header->magic, "EPSTAGE1", 8);
  edgeprof_ring = (unsigned char *)map;
}

/* The number of a stage's name (at most 127 bytes; "stage\tmodel\tvariant\truntime" names its model too). */
static edgeprof_stage edgeprof_stage_named(const char *name) {
  edgeprof_header *header;
  char *entry;
  uint32_t number;
  pthread_once(&edgeprof_once, edgeprof_open);
  if (!edgeprof_ring) return 0;
  pthread_mutex_lock(&edgeprof_lock);
  header = (edgeprof_header *)edgeprof_ring;
  for (number = 0; number < header->names; number++) {
    entry = (char *)edgeprof_ring + EDGEPROF_NAMES_AT + number * EDGEPROF_NAME_BYTES;
    if (!strncmp(entry, name, EDGEPROF_NAME_BYTES - 1)) break;
  }
  if (number >= EDGEPROF_NAMES - 1) {
    number = EDGEPROF_NAMES - 1;
    name = "other";
  }
  entry = (char *)edgeprof_ring + EDGEPROF_NAMES_AT + number * EDGEPROF_NAME_BYTES;
  if (!*entry) snprintf(entry, EDGEPROF_NAME_BYTES, "%s", name);
  if (number == header->names && number < EDGEPROF_NAMES - 1) header->names++;
  pthread_mutex_unlock(&edgeprof_lock);
  return number;
}

static void edgeprof_stage_end(edgeprof_stage name, uint64_t start) {
  static const size_t slots_at = EDGEPROF_NAMES_AT + EDGEPROF_NAMES * EDGEPROF_NAME_BYTES;
  uint64_t number;
  edgeprof_slot *slot;
  uint64_t end;
  if (!edgeprof_ring) return;
  end = edgeprof_stage_begin();
  number = __atomic_fetch_add(&((edgeprof_header *)edgeprof_ring)->next, 1, __ATOMIC_RELAXED);
  slot = (edgeprof_slot *)(edgeprof_ring + slots_at) + number % EDGEPROF_SLOTS;
  __atomic_store_n(&slot->number, 0, __ATOMIC_RELEASE);
  slot->start = start;
  slot->end = end;
  slot->name = name;
  slot->thread = (uint32_t)(uintptr_t)pthread_self();
  __atomic_store_n(&slot->number, number + 1, __ATOMIC_RELEASE);
}

#endif
