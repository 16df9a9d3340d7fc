#if defined(__linux__)
#define _GNU_SOURCE
#include <sched.h>
#endif
#include "csimd_workers.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

// The gate holds the job's number above bit 32, an open flag at bit 31 and the count of workers inside below. A worker
// enters an open gate by adding one; the caller closes the gate when no piece is left and waits for those inside only.
// So a worker that is parked, or slow to wake, never delays a job.
#define GATE_OPEN (1ull << 31)
#define GATE_JOB (1ull << 32)
#define GATE_INSIDE (GATE_OPEN - 1)

enum { SPINS = 4000 }; // some 50 us

typedef struct worker {
  nb_workers *workers;
  int index;
  pthread_t thread;
} worker;

struct nb_workers {
  _Alignas(64) _Atomic uint64_t gate;
  _Alignas(64) _Atomic int next;
  _Alignas(64) _Atomic int parked;
  _Atomic int stop;
  nb_piece_function function;
  void *context;
  int count, thread_count;
  pthread_mutex_t caller, park;
  pthread_cond_t wake;
  worker threads[];
};

static _Thread_local const nb_workers *inside_of = NULL;
static _Thread_local int inside_as = 0;

static void pause_shortly(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

static void take_pieces(nb_workers *workers, int index) {
  const nb_workers *outer = inside_of;
  const int outer_index = inside_as;
  inside_of = workers;
  inside_as = index;
  for (;;) {
    const int piece = atomic_fetch_add_explicit(&workers->next, 1, memory_order_relaxed);
    if (piece >= workers->count) break;
    workers->function(workers->context, piece, index);
  }
  inside_of = outer;
  inside_as = outer_index;
}

// Waits for a gate of a job later than `seen`; 0 when the pool ends.
static uint64_t next_gate(nb_workers *workers, uint64_t seen) {
  for (int spin = 0; spin < SPINS; spin++) {
    const uint64_t gate = atomic_load_explicit(&workers->gate, memory_order_acquire);
    if (gate / GATE_JOB != seen) return gate;
    if (atomic_load_explicit(&workers->stop, memory_order_relaxed)) return 0;
    pause_shortly();
  }
  pthread_mutex_lock(&workers->park);
  atomic_fetch_add(&workers->parked, 1);
  uint64_t gate;
  while ((gate = atomic_load(&workers->gate)) / GATE_JOB == seen && !atomic_load(&workers->stop))
    pthread_cond_wait(&workers->wake, &workers->park);
  atomic_fetch_sub(&workers->parked, 1);
  pthread_mutex_unlock(&workers->park);
  return gate / GATE_JOB == seen ? 0 : gate;
}

static void *work(void *argument) {
  const worker *self = argument;
  nb_workers *workers = self->workers;
  uint64_t seen = 0;
  for (;;) {
    uint64_t gate = next_gate(workers, seen);
    if (gate == 0) return NULL;
    seen = gate / GATE_JOB;
    int entered = 0;
    while ((gate & GATE_OPEN) && gate / GATE_JOB == seen && !entered)
      entered = atomic_compare_exchange_weak(&workers->gate, &gate, gate + 1);
    if (!entered) continue;
    take_pieces(workers, self->index);
    atomic_fetch_sub_explicit(&workers->gate, 1, memory_order_release);
  }
}

int nb_processor_count(void) {
#if defined(__linux__)
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof allowed, &allowed) == 0 && CPU_COUNT(&allowed) > 0) return CPU_COUNT(&allowed);
#endif
  const long count = sysconf(_SC_NPROCESSORS_ONLN);
  return count < 1 ? 1 : (int)count;
}

static void pin(nb_workers *workers) {
#if defined(__linux__)
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof allowed, &allowed) != 0 || CPU_COUNT(&allowed) != workers->thread_count) return;
  int index = 0;
  for (int cpu = 0; cpu < CPU_SETSIZE && index < workers->thread_count; cpu++) {
    if (!CPU_ISSET(cpu, &allowed)) continue;
    if (index > 0) { // the caller's thread is not ours to pin
      cpu_set_t one;
      CPU_ZERO(&one);
      CPU_SET(cpu, &one);
      pthread_setaffinity_np(workers->threads[index].thread, sizeof one, &one);
    }
    index++;
  }
#else
  (void)workers;
#endif
}

nb_workers *nb_workers_create(int thread_count) {
  if (thread_count < 1) thread_count = 1;
  const size_t bytes = sizeof(nb_workers) + (size_t)thread_count * sizeof(worker);
  nb_workers *workers = aligned_alloc(64, (bytes + 63) / 64 * 64);
  if (workers == NULL) return NULL;
  atomic_init(&workers->gate, 0);
  atomic_init(&workers->next, 0);
  atomic_init(&workers->parked, 0);
  atomic_init(&workers->stop, 0);
  workers->count = 0;
  workers->thread_count = 1;
  pthread_mutex_init(&workers->caller, NULL);
  pthread_mutex_init(&workers->park, NULL);
  pthread_cond_init(&workers->wake, NULL);
  for (int index = 1; index < thread_count; index++) {
    worker *self = &workers->threads[index];
    self->workers = workers;
    self->index = index;
    if (pthread_create(&self->thread, NULL, work, self) != 0) break;
    workers->thread_count = index + 1;
  }
  pin(workers);
  return workers;
}

void nb_workers_destroy(nb_workers *workers) {
  if (workers == NULL) return;
  pthread_mutex_lock(&workers->park);
  atomic_store(&workers->stop, 1);
  pthread_cond_broadcast(&workers->wake);
  pthread_mutex_unlock(&workers->park);
  for (int index = 1; index < workers->thread_count; index++) pthread_join(workers->threads[index].thread, NULL);
  pthread_cond_destroy(&workers->wake);
  pthread_mutex_destroy(&workers->park);
  pthread_mutex_destroy(&workers->caller);
  free(workers);
}

int nb_workers_thread_count(const nb_workers *workers) { return workers->thread_count; }

void nb_workers_run(nb_workers *workers, int count, nb_piece_function function, void *context) {
  if (count <= 0) return;
  if (inside_of == workers) {
    for (int piece = 0; piece < count; piece++) function(context, piece, inside_as);
    return;
  }
  pthread_mutex_lock(&workers->caller);
  workers->function = function;
  workers->context = context;
  workers->count = count;
  atomic_store_explicit(&workers->next, 0, memory_order_relaxed);
  if (workers->thread_count > 1 && count > 1) {
    // Nobody is inside a closed gate, so the job's fields above were ours to write.
    const uint64_t job = atomic_load_explicit(&workers->gate, memory_order_relaxed) / GATE_JOB + 1;
    atomic_store(&workers->gate, job * GATE_JOB | GATE_OPEN);
    if (atomic_load(&workers->parked) > 0) {
      pthread_mutex_lock(&workers->park);
      pthread_cond_broadcast(&workers->wake);
      pthread_mutex_unlock(&workers->park);
    }
    take_pieces(workers, 0);
    atomic_fetch_and(&workers->gate, ~GATE_OPEN);
    for (int spin = 0; atomic_load_explicit(&workers->gate, memory_order_acquire) & GATE_INSIDE; spin++) {
      pause_shortly();
#if defined(__linux__)
      if (spin >= SPINS) sched_yield(); // more threads than processors: let the last one finish
#endif
    }
  } else {
    take_pieces(workers, 0);
  }
  pthread_mutex_unlock(&workers->caller);
}

// A Swift closure that doesn't escape arrives as two words, its code and its context, and is called with Swift's
// convention. Taking it apart here spares the caller the heap object that Swift makes of a closure before it gives out
// its address.
typedef __attribute__((swiftcall)) void (*closure_code)(intptr_t piece, intptr_t worker,
                                                        __attribute__((swift_context)) void *context);

typedef struct closure {
  closure_code code;
  void *context;
} closure;

static void call_closure(void *context, int piece, int worker) {
  const closure *body = context;
  body->code(piece, worker, body->context);
}

__attribute__((swiftcall)) void nb_workers_run_closure(nb_workers *workers, int count, closure_code code,
                                                       void *context);

__attribute__((swiftcall)) void nb_workers_run_closure(nb_workers *workers, int count, closure_code code,
                                                       void *context) {
  closure body = {code, context};
  nb_workers_run(workers, count, call_closure, &body);
}
