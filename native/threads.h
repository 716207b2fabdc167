/* Splits the tasks of one call between threads. */
#ifndef HSOFTMAX_THREADS_H
#define HSOFTMAX_THREADS_H

#include <stdint.h>

#define MAX_THREADS 64 /* of one call */

typedef void task_function(void *context, int64_t task, int thread);

/* Takes up to `wanted` threads, of which the caller's is the first, from those that are free.
 * Returns their number, at least 1. */
int take_threads(int32_t *free_threads, int64_t wanted);
void give_threads_back(int32_t *free_threads, int threads);

/* Runs each task of 0..tasks - 1 once, in any order, and returns when all are done. `thread` is
 * 0..threads - 1: two tasks of one number do not run at the same time. */
void run_tasks(int threads, int64_t tasks, task_function *run, void *context);

#endif
