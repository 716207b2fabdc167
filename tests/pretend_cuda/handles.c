/* Functions of cuBLAS and cuBLASLt that give something to their caller. All others do nothing, and
   `build` writes them. */
#include <stdlib.h>

static int create(void **handle) {
    *handle = malloc(256);
    return 0;
}

int cublasCreate_v2(void **handle) { return create(handle); }
int cublasGetMathMode(void *handle, int *mode) { return *mode = 0; }

int cublasLtCreate(void **handle) { return create(handle); }
int cublasLtMatmulDescCreate(void **handle) { return create(handle); }
int cublasLtMatmulPreferenceCreate(void **handle) { return create(handle); }
int cublasLtMatrixLayoutCreate(void **handle) { return create(handle); }
int cublasLtMatrixTransformDescCreate(void **handle) { return create(handle); }
