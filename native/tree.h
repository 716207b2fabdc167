/* What the functions of a tree share. */
#ifndef HSOFTMAX_TREE_H
#define HSOFTMAX_TREE_H

#include "hsoftmax.h"
#include "kernels.h"

int tree_is_valid(const hsoftmax_tree *tree);

/* Log-probabilities of the branches -1 and +1 of a node. */
void log_branches(const kernel_set *kernels, const hsoftmax_tree *tree, const float *hidden,
                  int64_t node, double branch[2]);

#endif
