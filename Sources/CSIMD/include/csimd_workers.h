// A pool of worker threads for steps that are much shorter than a scheduler's time slice: workers spin shortly, then
// park.
#pragma once

#ifdef __cplusplus
extern "C" {
#endif

typedef struct nb_workers nb_workers;

/// Processors in the affinity mask of the calling thread, at least 1.
int nb_processor_count(void);

/// One piece of a job. `worker` is below the pool's thread count, and no two pieces that run at the same time share it.
typedef void (*nb_piece_function)(void *context, int piece, int worker);

/// A pool of `thread_count` threads (at least 1), the caller of `nb_workers_run` being one of them; NULL without
/// memory. Fewer threads run if the system refuses some. When the pool takes all processors of the affinity mask, the
/// threads are pinned.
nb_workers *nb_workers_create(int thread_count);

/// Ends the threads. No job may be running.
void nb_workers_destroy(nb_workers *workers);

int nb_workers_thread_count(const nb_workers *workers);

/// Calls `function` once for each piece 0 ..< count, handing pieces out in order to whichever thread is free, and
/// returns when all are done. Allocates nothing. Calls from several threads wait for one another. A call from inside a
/// piece can't get the threads: it runs its pieces one by one on the calling thread, under that thread's number.
void nb_workers_run(nb_workers *workers, int count, nb_piece_function function, void *context);

// Declared in Swift, where its last two parameters are one closure: see WorkerPool.
//   void nb_workers_run_closure(nb_workers *, int, void (*code)(intptr_t piece, intptr_t worker),
//                               void *closure_context)

#ifdef __cplusplus
}
#endif
