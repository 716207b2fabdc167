/* The k likeliest leaves of a binary tree, exactly, by opening the likeliest node first.
 *
 * A leaf's log p is at most that of its ancestors. So a node needs to be opened only while its log p
 * is at least the k-th best so far. A row with a peaked distribution opens few nodes. One with a
 * flat distribution opens many; then the order no longer helps, and the rest of the tree is walked
 * depth first, which needs no heap. Scores with an epsilon may rise on the way down, by at most
 * log(1 + epsilon) a step: `slack` bounds that. */
#include <math.h>
#include <stdlib.h>

#include "best.h"
#include "dispatch.h"
#include "tree.h"

#define NODES_PER_ORDERED 16 /* a row opens one node in 16 in order, before it walks depth first */

typedef struct {
    const kernel_set *kernels;
    const hsoftmax_tree *tree;
    const volatile int32_t *stop;
    const float *hidden;
    int64_t max_nodes, opened;
    heap open; /* nodes that are not opened yet, the likeliest on top */
    best_k best;
} search;

/* Opens a node: its leaves are results; its inner nodes go to `inner`, the likelier one last. */
static int open_node(search *search, candidate node, candidate inner[2], int *count) {
    const hsoftmax_tree *tree = search->tree;
    double branch[2];
    *count = 0;
    if (node.at >= tree->nodes || ++search->opened > tree->nodes) return HSOFTMAX_BAD_MODEL;
    log_branches(search->kernels, tree, search->hidden, node.at, branch);
    for (int side = 0; side < 2; side++) {
        const int64_t child = tree->children[2 * node.at + side];
        const candidate next = {node.log_prob + branch[side], child < 0 ? -1 - child : child};
        if (next.at >= (child < 0 ? tree->targets : tree->nodes)) return HSOFTMAX_BAD_MODEL;
        if (child < 0) {
            if (!add_leaf(&search->best, next)) return HSOFTMAX_NO_MEMORY;
        } else {
            __builtin_prefetch(node_weight(tree, child));
            inner[(*count)++] = next;
        }
    }
    if (*count == 2 && is_likelier(&inner[0], &inner[1])) {
        const candidate first = inner[0];
        inner[0] = inner[1];
        inner[1] = first;
    }
    return HSOFTMAX_OK;
}

/* Opens everything below a node that may hold one of the k best. */
static int walk_below(search *search, candidate node) {
    const int64_t room = search->tree->depth + 2; /* one sibling a step */
    candidate *stack = malloc((size_t)room * sizeof(candidate)), inner[2];
    if (!stack) return HSOFTMAX_NO_MEMORY;
    int status = HSOFTMAX_OK, count;
    int64_t size = 1;
    stack[0] = node;
    while (size && status == HSOFTMAX_OK) {
        node = stack[--size];
        if (search->stop && *search->stop) {
            status = HSOFTMAX_STOPPED;
            break;
        }
        if (is_hopeless(&search->best, node.log_prob)) continue;
        status = open_node(search, node, inner, &count);
        if (size + count > room) status = HSOFTMAX_BAD_MODEL; /* deeper than its depth */
        for (int i = 0; i < count && status == HSOFTMAX_OK; i++) stack[size++] = inner[i];
    }
    free(stack);
    return status;
}

/* Returns a status; `exact` is 0 if the limit of nodes ended the search. */
static int run(search *search, uint8_t *exact) {
    const int64_t ordered = search->tree->nodes / NODES_PER_ORDERED + 64;
    candidate inner[2];
    *exact = 1;
    while (search->open.size && !is_hopeless(&search->best, search->open.items[0].log_prob)) {
        int status, count = 0;
        if (search->stop && *search->stop) return HSOFTMAX_STOPPED;
        if (search->max_nodes && search->opened >= search->max_nodes &&
            search->best.heap.size == search->best.k) {
            *exact = 0;
            return HSOFTMAX_OK;
        }
        const candidate node = heap_pop(&search->open);
        if (!search->max_nodes && search->opened >= ordered)
            status = walk_below(search, node);
        else
            status = open_node(search, node, inner, &count);
        for (int i = 0; i < count && status == HSOFTMAX_OK; i++)
            if (!is_hopeless(&search->best, inner[i].log_prob) && !heap_push(&search->open, inner[i]))
                status = HSOFTMAX_NO_MEMORY;
        if (status != HSOFTMAX_OK) return status;
    }
    return HSOFTMAX_OK;
}

static int search_row(search *search, float *log_prob, int64_t *target, int64_t *opened,
                      uint8_t *exact) {
    const hsoftmax_tree *tree = search->tree;
    search->open.size = search->best.heap.size = search->opened = 0;
    int status = HSOFTMAX_OK;
    *exact = 1;
    if (tree->targets == 1) {
        if (!add_leaf(&search->best, (candidate){0, 0})) status = HSOFTMAX_NO_MEMORY;
    } else if (tree->path[0] < 0) {
        status = HSOFTMAX_BAD_MODEL;
    } else {
        if (!heap_push(&search->open, (candidate){0, tree->path[0]})) status = HSOFTMAX_NO_MEMORY;
        if (status == HSOFTMAX_OK) status = run(search, exact);
    }
    *opened = search->opened;
    if (status == HSOFTMAX_OK) take_results(&search->best, log_prob, target);
    return status;
}

int32_t hsoftmax_tree_top_k(const hsoftmax_tree *tree, const float *hidden, int64_t batch, int64_t k,
                            int64_t max_opened, const volatile int32_t *stop, int32_t *free_threads,
                            float *log_prob, int64_t *target, int64_t *opened, uint8_t *exact) {
    search search = {.kernels = chosen_kernels(), .tree = tree, .stop = stop,
                     .max_nodes = max_opened};
    (void)free_threads;
    if (!search.kernels || batch < 0 || max_opened < 0) return HSOFTMAX_BAD_ARGUMENT;
    if (!tree_is_valid(tree)) return HSOFTMAX_BAD_MODEL;
    if (k < 1 || k > tree->targets) return HSOFTMAX_BAD_ARGUMENT;
    if (batch && (!hidden || !log_prob || !target || !opened || !exact))
        return HSOFTMAX_BAD_ARGUMENT;
    search.open.is_above = is_likelier;
    search.best = (best_k){.heap = {.is_above = is_worse}, .k = k};
    search.best.slack = (double)tree->depth * log1p(tree->epsilon);
    int status = HSOFTMAX_OK;
    for (int64_t i = 0; i < batch && status == HSOFTMAX_OK; i++) {
        search.hidden = hidden + i * tree->hidden_size;
        status = search_row(&search, log_prob + i * k, target + i * k, opened + i, exact + i);
    }
    free(search.open.items);
    free(search.best.heap.items);
    return status;
}
