/* What the functions of a tree share. */
#ifndef HSOFTMAX_TREE_H
#define HSOFTMAX_TREE_H

#include "hsoftmax.h"
#include "kernels.h"

int tree_is_valid(const hsoftmax_tree *tree);

/* The weight of a node. */
static inline const void *node_weight(const hsoftmax_tree *tree, int64_t node) {
    return (const char *)tree->weight + node * tree->hidden_size * weight_size(tree->weight_type);
}

/* The logit of a node for the product of its weight. */
static inline float node_logit(const hsoftmax_tree *tree, int64_t node, float product) {
    if (tree->weight_type == HSOFTMAX_I8) product *= tree->scale[node];
    return tree->bias ? product + tree->bias[node] : product;
}

/* Log-probabilities of the branches -1 and +1 of a node. */
void log_branches(const kernel_set *kernels, const hsoftmax_tree *tree, const float *hidden,
                  int64_t node, double branch[2]);

#endif
