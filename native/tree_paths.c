/* Log-probabilities of targets of a binary tree: the sum of log sigmoids along each target's path.
 *
 *     log p(target | hidden) = sum over steps of log sigmoid(sign * logit(node))
 *     logit(node) = scale[node] * (weight[node] . hidden) + bias[node] */
#include <math.h>

#include "dispatch.h"
#include "tree.h"

#define MAX_STEPS 64 /* a multiple of 16 */

int tree_is_valid(const hsoftmax_tree *tree) {
    return tree && tree->weight && tree->path && tree->sign && tree->children && tree->nodes >= 1 &&
           tree->targets >= 1 && tree->depth >= 1 && tree->hidden_size >= 1 &&
           tree->nodes <= INT32_MAX && tree->targets <= INT32_MAX &&
           tree->hidden_size <= INT64_MAX / 4 / tree->nodes &&
           tree->depth <= INT64_MAX / 4 / tree->targets && tree->epsilon >= 0 &&
           weight_type_is_valid(tree->weight_type, tree->scale);
}

static double smoothed(const hsoftmax_tree *tree, float log_prob) {
    return tree->epsilon ? log(exp(log_prob) + tree->epsilon) : log_prob;
}

void log_branches(const kernel_set *kernels, const hsoftmax_tree *tree, const float *hidden,
                  int64_t node, double branch[2]) {
    const void *weight = node_weight(tree, node);
    float product, negative, positive;
    kernels->dots[tree->weight_type](hidden, &weight, 1, tree->hidden_size, &product);
    kernels->log_branches(node_logit(tree, node, product), &negative, &positive);
    branch[0] = smoothed(tree, negative);
    branch[1] = smoothed(tree, positive);
}

/* Adds the log sigmoids of the next steps of a path to its total, up to MAX_STEPS at once, because
 * a vector of them takes little longer than one. Returns their number, 0 at the end of the path;
 * -1 for a node outside of the tree. */
static int add_steps(const kernel_set *kernels, const hsoftmax_tree *tree, const float *hidden,
                     const int32_t *path, const int8_t *sign, int64_t depth, double *total) {
    const void *weight[MAX_STEPS];
    int64_t node[MAX_STEPS];
    float z[MAX_STEPS];
    int steps = 0;
    for (; steps < depth && steps < MAX_STEPS && sign[steps]; steps++) {
        node[steps] = path[steps];
        if (node[steps] < 0 || node[steps] >= tree->nodes) return -1;
        weight[steps] = node_weight(tree, node[steps]);
    }
    if (!steps) return 0;
    kernels->dots[tree->weight_type](hidden, weight, steps, tree->hidden_size, z);
    for (int i = 0; i < steps; i++) {
        z[i] = node_logit(tree, node[i], z[i]);
        if (sign[i] < 0) z[i] = -z[i];
    }
    for (int i = steps; i < padded(steps); i++) z[i] = 0;
    kernels->log_sigmoids(z, padded(steps));
    for (int i = 0; i < steps; i++) *total += smoothed(tree, z[i]);
    return steps;
}

static int path_log_prob(const kernel_set *kernels, const hsoftmax_tree *tree, const float *hidden,
                         int64_t target, float *log_prob) {
    const int32_t *path = tree->path + target * tree->depth;
    const int8_t *sign = tree->sign + target * tree->depth;
    double total = 0;
    for (int64_t d = 0, steps; d < tree->depth; d += steps) {
        steps = add_steps(kernels, tree, hidden, path + d, sign + d, tree->depth - d, &total);
        if (steps < 0) return HSOFTMAX_BAD_MODEL;
        if (!steps) break;
    }
    *log_prob = (float)total;
    return HSOFTMAX_OK;
}

static void prefetch_path(const hsoftmax_tree *tree, int64_t target) {
    const int32_t *path = tree->path + target * tree->depth;
    const int8_t *sign = tree->sign + target * tree->depth;
    for (int64_t d = 0; d < tree->depth && d < 64 && sign[d]; d++)
        __builtin_prefetch(node_weight(tree, path[d]));
}

int32_t hsoftmax_tree_target_log_prob(const hsoftmax_tree *tree, const float *hidden, int64_t batch,
                                      const int64_t *row, const int64_t *target, int64_t pairs,
                                      const volatile int32_t *stop, int32_t *free_threads,
                                      float *log_prob) {
    (void)free_threads;
    const kernel_set *kernels = chosen_kernels();
    if (!kernels || batch < 0 || pairs < 0) return HSOFTMAX_BAD_ARGUMENT;
    if (!tree_is_valid(tree)) return HSOFTMAX_BAD_MODEL;
    if (pairs && (!hidden || !row || !target || !log_prob)) return HSOFTMAX_BAD_ARGUMENT;
    for (int64_t i = 0; i < pairs; i++) {
        if (row[i] < 0 || row[i] >= batch) return HSOFTMAX_BAD_ROW;
        if (target[i] < 0 || target[i] >= tree->targets) return HSOFTMAX_BAD_TARGET;
    }
    int status = HSOFTMAX_OK;
    for (int64_t i = 0; i < pairs && status == HSOFTMAX_OK; i++) {
        if (stop && *stop) return HSOFTMAX_STOPPED;
        if (i + 1 < pairs) prefetch_path(tree, target[i + 1]);
        status = path_log_prob(kernels, tree, hidden + row[i] * tree->hidden_size, target[i],
                               log_prob + i);
    }
    return status;
}
