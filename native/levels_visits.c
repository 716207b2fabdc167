/* Computes the blocks of one level that hidden rows need, split between threads.
 *
 * Visits are sorted by block, so that a block is read once for all hidden rows that need it. They
 * are cut into tiles: the visits of one block by up to MAX_TILE_ROWS hidden rows. Threads take one
 * tile after another. A tile that is more than one thread's share of the work is divided by columns,
 * and the thread that finishes the last part uses its logits. Neither changes the order of any sum,
 * so the number of threads changes no bit. */
#include "levels_visits.h"

#include <stdlib.h>

#include "threads.h"

#define MAX_TILE_ROWS 64
#define MAX_TILE_LOGITS (1 << 22)    /* 16 MB, unless MAX_ROWS rows need more */

/* The tests of the sanitizers compile with smaller numbers, so that small models are split too. */
#ifndef CACHED_WEIGHTS
#define CACHED_WEIGHTS (1 << 17)     /* stay in cache while all rows of a tile are multiplied */
#define STREAMED_WEIGHTS (1 << 20)   /* are read between two looks at the stop flag */
#define WEIGHTS_PER_THREAD (1 << 20) /* take several times as long as to start a thread */
#endif

typedef struct {
    const visit *from, *end; /* sorted by row */
    float *y;                /* logits, if the tile is divided */
    int64_t unfinished;      /* parts */
} tile;

typedef struct {
    const level_query *query;
    const hsoftmax_level *level;
    use_logits *use;
    void *context;
    tile *tiles; /* the divided ones first */
    int64_t count, divided, parts;
    int64_t largest; /* logits of a tile */
    float *y;        /* [threads, largest] */
    int32_t stopped;
} level_run;

static int compare_visits(const void *left, const void *right) {
    const visit *a = left, *b = right;
    if (a->block != b->block) return a->block < b->block ? -1 : 1;
    if (a->row != b->row) return a->row < b->row ? -1 : 1;
    return (a->result > b->result) - (a->result < b->result);
}

static void sort(visit *visits, int64_t count) {
    for (int64_t i = 1; i < count; i++)
        if (compare_visits(&visits[i - 1], &visits[i]) > 0) {
            qsort(visits, (size_t)count, sizeof(visit), compare_visits);
            return;
        }
}

/* The end of the visits of the same row and block as `from`. */
static const visit *end_of_row(const visit *from, const visit *end) {
    const visit *next = from + 1;
    while (next < end && next->row == from->row && next->block == from->block) next++;
    return next;
}

static int64_t rows_of(const tile *tile) {
    int64_t rows = 0;
    for (const visit *v = tile->from; v < tile->end; v = end_of_row(v, tile->end)) rows++;
    return rows;
}

static int64_t columns_of(const level_run *run, const tile *tile) {
    return size_of(run->level, tile->from->block);
}

/* The time of a tile in weights: to read one takes as long as to multiply it with 8 rows. */
static int64_t work_of(const level_run *run, const tile *tile) {
    return columns_of(run, tile) * run->query->hidden_size * (rows_of(tile) + 8) / 8;
}

static int64_t most_rows(int64_t columns) {
    const int64_t rows = MAX_TILE_LOGITS / padded(columns);
    return rows < MAX_ROWS ? MAX_ROWS : rows < MAX_TILE_ROWS ? rows : MAX_TILE_ROWS;
}

/* Cuts sorted visits into tiles. */
static void cut(level_run *run, const visit *visits, int64_t count) {
    const visit *end = visits + count;
    for (const visit *v = visits; v < end;) {
        tile *tile = &run->tiles[run->count++];
        const int64_t columns = size_of(run->level, v->block), most = most_rows(columns);
        int64_t rows = 0;
        tile->from = v;
        for (; rows < most && v < end && v->block == tile->from->block; rows++)
            v = end_of_row(v, end);
        tile->end = v;
        if (rows * padded(columns) > run->largest) run->largest = rows * padded(columns);
    }
}

/* Moves the tiles that are more than one thread's share to the front, and gives them memory. */
static int divide(level_run *run, int threads, int64_t work) {
    run->parts = threads;
    for (int64_t i = 0; threads > 1 && i < run->count; i++) {
        if (work_of(run, &run->tiles[i]) <= work / threads) continue;
        tile large = run->tiles[i];
        const int64_t size = rows_of(&large) * padded(columns_of(run, &large));
        large.unfinished = run->parts;
        large.y = malloc((size_t)size * sizeof(float));
        if (!large.y) return 0;
        run->tiles[i] = run->tiles[run->divided];
        run->tiles[run->divided++] = large;
    }
    return 1;
}

static int is_stopped(level_run *run) {
    if (run->query->stop && *run->query->stop)
        __atomic_store_n(&run->stopped, 1, __ATOMIC_RELAXED);
    return __atomic_load_n(&run->stopped, __ATOMIC_RELAXED);
}

/* Computes the logits of the columns `from` to `end` of a tile's block, [rows, padded columns]. */
static void multiply(level_run *run, const tile *tile, int64_t from, int64_t end, float *y) {
    const level_query *query = run->query;
    const int64_t stride = padded(columns_of(run, tile));
    const float *x[MAX_TILE_ROWS];
    int rows = 0;
    for (const visit *v = tile->from; v < tile->end; v = end_of_row(v, tile->end))
        x[rows++] = query->hidden + v->row * query->hidden_size;
    const int64_t weights = rows > MAX_ROWS ? CACHED_WEIGHTS
                            : rows > 1      ? STREAMED_WEIGHTS
                                            : 32 * STREAMED_WEIGHTS; /* one row needs long reads */
    const int64_t step = padded(weights / query->hidden_size + 1);
    for (; from < end && !is_stopped(run); from += step)
        block_columns(query->kernels, run->level, tile->from->block, from,
                      end - from < step ? end - from : step, x, rows, query->hidden_size, stride, y);
}

static void use_tile(level_run *run, const tile *tile, float *y) {
    const int64_t columns = columns_of(run, tile);
    if (is_stopped(run)) return;
    for (const visit *v = tile->from, *next; v < tile->end; v = next, y += padded(columns)) {
        next = end_of_row(v, tile->end);
        run->use(run->context, v, next, y, run->query->kernels->log_sum_exp(y, columns));
    }
}

static void compute_tile(level_run *run, const tile *tile, float *y) {
    multiply(run, tile, 0, columns_of(run, tile), y);
    use_tile(run, tile, y);
}

static void compute_part(level_run *run, tile *tile, int64_t part) {
    const int64_t columns = columns_of(run, tile), step = padded(columns / run->parts + 1);
    const int64_t from = part * step, end = from + step;
    multiply(run, tile, from, end < columns ? end : columns, tile->y);
    if (!__atomic_sub_fetch(&tile->unfinished, 1, __ATOMIC_ACQ_REL)) use_tile(run, tile, tile->y);
}

static void compute(void *context, int64_t task, int thread) {
    level_run *run = context;
    const int64_t parts = run->divided * run->parts;
    if (task < parts)
        compute_part(run, &run->tiles[task / run->parts], task % run->parts);
    else
        compute_tile(run, &run->tiles[run->divided + task - parts],
                     run->y + thread * run->largest);
}

static int run_on(level_run *run, int threads, int64_t work) {
    run->y = malloc((size_t)(threads * run->largest) * sizeof(float));
    int status = run->y && divide(run, threads, work) ? HSOFTMAX_OK : HSOFTMAX_NO_MEMORY;
    if (status == HSOFTMAX_OK)
        run_tasks(threads, run->divided * run->parts + run->count - run->divided, compute, run);
    for (int64_t i = 0; i < run->divided; i++) free(run->tiles[i].y);
    free(run->y);
    return run->stopped ? HSOFTMAX_STOPPED : status;
}

int visit_level(const level_query *query, const hsoftmax_level *level, visit *visits, int64_t count,
                use_logits *use, void *context) {
    level_run run = {.query = query, .level = level, .use = use, .context = context};
    for (int64_t i = 0; i < count; i++)
        if (!block_is_valid(level, visits[i].block)) return HSOFTMAX_BAD_MODEL;
    run.tiles = malloc((size_t)count * sizeof(tile));
    if (!run.tiles) return HSOFTMAX_NO_MEMORY;
    sort(visits, count);
    cut(&run, visits, count);
    int64_t work = 0;
    for (int64_t i = 0; i < run.count; i++) work += work_of(&run, &run.tiles[i]);
    const int threads = take_threads(query->free_threads, work / WEIGHTS_PER_THREAD);
    const int status = run_on(&run, threads, work);
    give_threads_back(query->free_threads, threads);
    free(run.tiles);
    return status;
}
