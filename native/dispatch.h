/* The kernels that this CPU can run; null if there are none. */
#ifndef HSOFTMAX_DISPATCH_H
#define HSOFTMAX_DISPATCH_H

#include "kernels.h"

const kernel_set *chosen_kernels(void);

#endif
