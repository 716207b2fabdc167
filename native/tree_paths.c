/* Log-probabilities of targets of a binary tree: the sum of log sigmoids along each target's path.
 *
 *     log p(target | hidden) = sum over steps of log sigmoid(sign * logit(node))
 *     logit(node) = weight[node] . hidden + bias[node] */
#include <math.h>

#include "dispatch.h"
#include "tree.h"

int tree_is_valid(const hsoftmax_tree *tree) {
    return tree && tree->weight && tree->path && tree->sign && tree->children && tree->nodes >= 1 &&
           tree->targets >= 1 && tree->depth >= 1 && tree->hidden_size >= 1 &&
           tree->nodes <= INT32_MAX && tree->targets <= INT32_MAX &&
           tree->hidden_size <= INT64_MAX / 4 / tree->nodes &&
           tree->depth <= INT64_MAX / 4 / tree->targets && tree->epsilon >= 0;
}

void log_branches(const kernel_set *kernels, const hsoftmax_tree *tree, const float *hidden,
                  int64_t node, double branch[2]) {
    const int64_t size = tree->hidden_size;
    float logit = kernels->dot(hidden, tree->weight + node * size, size), negative, positive;
    if (tree->bias) logit += tree->bias[node];
    kernels->log_sigmoids(logit, &negative, &positive);
    branch[0] = tree->epsilon ? log(exp(negative) + tree->epsilon) : negative;
    branch[1] = tree->epsilon ? log(exp(positive) + tree->epsilon) : positive;
}

static int path_log_prob(const kernel_set *kernels, const hsoftmax_tree *tree, const float *hidden,
                         int64_t target, float *log_prob) {
    const int32_t *path = tree->path + target * tree->depth;
    const int8_t *sign = tree->sign + target * tree->depth;
    double total = 0, branch[2];
    for (int64_t d = 0; d < tree->depth && sign[d]; d++) {
        if (path[d] < 0 || path[d] >= tree->nodes) return HSOFTMAX_BAD_MODEL;
        log_branches(kernels, tree, hidden, path[d], branch);
        total += branch[sign[d] > 0];
    }
    *log_prob = (float)total;
    return HSOFTMAX_OK;
}

static void prefetch_path(const hsoftmax_tree *tree, int64_t target) {
    const int32_t *path = tree->path + target * tree->depth;
    const int8_t *sign = tree->sign + target * tree->depth;
    for (int64_t d = 0; d < tree->depth && d < 64 && sign[d]; d++)
        __builtin_prefetch(tree->weight + path[d] * tree->hidden_size);
}

int32_t hsoftmax_tree_target_log_prob(const hsoftmax_tree *tree, const float *hidden, int64_t batch,
                                      const int64_t *row, const int64_t *target, int64_t pairs,
                                      const volatile int32_t *stop, float *log_prob) {
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
