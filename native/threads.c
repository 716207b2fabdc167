/* Splits the tasks of one call between threads, which live no longer than the call.
 *
 * To create and join a thread costs some 30 microseconds, so only calls with more work than that
 * want several. A pool that waits would have to survive forks and the unloading of the library. */
#define _POSIX_C_SOURCE 200809L

#include "threads.h"

#include <pthread.h>
#include <signal.h>

#define STACK_BYTES (1 << 18)

typedef struct {
    task_function *run;
    void *context;
    int64_t next, tasks;
} task_list;

typedef struct {
    pthread_t id;
    task_list *list;
    int number;
} helper;

int take_threads(int32_t *free_threads, int64_t wanted) {
    if (!free_threads) return 1;
    const int most = wanted < 1 ? 1 : wanted > MAX_THREADS ? MAX_THREADS : (int)wanted;
    const int32_t were_free = __atomic_fetch_sub(free_threads, most, __ATOMIC_RELAXED);
    const int taken = were_free < 1 ? 1 : were_free > most ? most : were_free;
    give_threads_back(free_threads, most - taken);
    return taken;
}

void give_threads_back(int32_t *free_threads, int threads) {
    if (free_threads) __atomic_fetch_add(free_threads, threads, __ATOMIC_RELAXED);
}

static void work(task_list *list, int number) {
    for (int64_t task; (task = __atomic_fetch_add(&list->next, 1, __ATOMIC_RELAXED)) < list->tasks;)
        list->run(list->context, task, number);
}

static void *help(void *argument) {
    const helper *self = argument;
    work(self->list, self->number);
    return NULL;
}

/* Starts helpers with all signals blocked, so that the process handles them in its own threads.
 * Returns how many could be started. */
static int start(helper *helpers, int count, task_list *list) {
    pthread_attr_t attributes;
    sigset_t all, before;
    int started = 0;
    if (pthread_attr_init(&attributes)) return 0;
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    for (; started < count; started++) {
        helpers[started].list = list;
        helpers[started].number = started + 1;
        if (pthread_create(&helpers[started].id, &attributes, help, &helpers[started])) break;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return started;
}

void run_tasks(int threads, int64_t tasks, task_function *run, void *context) {
    helper helpers[MAX_THREADS - 1];
    task_list list = {run, context, 0, tasks};
    const int64_t useful = tasks < threads ? tasks : threads;
    const int started = useful > 1 ? start(helpers, (int)useful - 1, &list) : 0;
    work(&list, 0);
    for (int i = 0; i < started; i++) pthread_join(helpers[i].id, NULL);
}
