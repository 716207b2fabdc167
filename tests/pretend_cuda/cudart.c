/* A pretend CUDA runtime: memory is the host's, and kernels do nothing.

   ONNX Runtime's provider for CUDA loads over it without a GPU, and places nodes as it does on one.
   Numbers that kernels would compute are zeros or rubbish. Compile against NVIDIA's headers, so that
   the compiler checks every signature. */
#define _GNU_SOURCE
#include <cuda_runtime_api.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define SUCCEEDS(name, ...) \
    cudaError_t name(__VA_ARGS__) { return cudaSuccess; }

/* --- memory: which kind an address is decides how it is copied -------------------------------- */

enum { MAX_AREAS = 1 << 14 };

typedef struct {
    char *start;
    size_t size;
    enum cudaMemoryType type;
} Area;

static Area areas[MAX_AREAS];
static pthread_mutex_t areas_lock = PTHREAD_MUTEX_INITIALIZER;

static cudaError_t allocate(void **pointer, size_t size, enum cudaMemoryType type) {
    size = size ? size : 1;
    void *start = mmap(NULL, size, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (start == MAP_FAILED) return cudaErrorMemoryAllocation;
    cudaError_t result = cudaErrorMemoryAllocation;
    pthread_mutex_lock(&areas_lock);
    for (int i = 0; i < MAX_AREAS && result != cudaSuccess; i++) {
        if (areas[i].start) continue;
        areas[i] = (Area){start, size, type};
        result = cudaSuccess;
    }
    pthread_mutex_unlock(&areas_lock);
    *pointer = start;
    return result;
}

static cudaError_t release(void *pointer) {
    pthread_mutex_lock(&areas_lock);
    for (int i = 0; pointer && i < MAX_AREAS; i++) {
        if (areas[i].start != pointer) continue;
        munmap(pointer, areas[i].size);
        areas[i].start = NULL;
        break;
    }
    pthread_mutex_unlock(&areas_lock);
    return cudaSuccess;
}

cudaError_t cudaMalloc(void **pointer, size_t size) {
    return allocate(pointer, size, cudaMemoryTypeDevice);
}
cudaError_t cudaMallocFromPoolAsync(void **pointer, size_t size, cudaMemPool_t pool,
                                    cudaStream_t stream) {
    return cudaMalloc(pointer, size);
}
cudaError_t cudaMallocHost(void **pointer, size_t size) {
    return allocate(pointer, size, cudaMemoryTypeHost);
}
cudaError_t cudaHostAlloc(void **pointer, size_t size, unsigned int flags) {
    return cudaMallocHost(pointer, size);
}
cudaError_t cudaFree(void *pointer) { return release(pointer); }
cudaError_t cudaFreeHost(void *pointer) { return release(pointer); }
cudaError_t cudaFreeAsync(void *pointer, cudaStream_t stream) { return release(pointer); }

cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *attributes,
                                     const void *pointer) {
    memset(attributes, 0, sizeof *attributes);
    attributes->type = cudaMemoryTypeUnregistered;
    pthread_mutex_lock(&areas_lock);
    for (int i = 0; i < MAX_AREAS; i++) {
        const Area *area = &areas[i];
        if (area->start && (const char *)pointer >= area->start &&
            (const char *)pointer < area->start + area->size)
            attributes->type = area->type;
    }
    pthread_mutex_unlock(&areas_lock);
    attributes->devicePointer = attributes->hostPointer = (void *)pointer;
    return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total) {
    *free_bytes = 79ull << 30;
    *total = 80ull << 30;
    return cudaSuccess;
}

cudaError_t cudaMemcpy(void *to, const void *from, size_t size, enum cudaMemcpyKind kind) {
    memmove(to, from, size);
    return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t size, enum cudaMemcpyKind kind,
                            cudaStream_t stream) {
    return cudaMemcpy(to, from, size, kind);
}
cudaError_t cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch,
                              size_t width, size_t height, enum cudaMemcpyKind kind,
                              cudaStream_t stream) {
    for (size_t i = 0; i < height; i++)
        memmove((char *)to + i * to_pitch, (const char *)from + i * from_pitch, width);
    return cudaSuccess;
}
cudaError_t cudaMemcpyFromSymbol(void *to, const void *symbol, size_t size, size_t offset,
                                 enum cudaMemcpyKind kind) {
    memset(to, 0, size);
    return cudaSuccess;
}
cudaError_t cudaMemset(void *to, int value, size_t size) {
    memset(to, value, size);
    return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void *to, int value, size_t size, cudaStream_t stream) {
    return cudaMemset(to, value, size);
}

/* --- streams, events and graphs: all work is done when a call returns -------------------------- */

cudaError_t cudaStreamCreate(cudaStream_t *stream) {
    *stream = malloc(1); /* each has an address of its own */
    return cudaSuccess;
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned int flags) {
    return cudaStreamCreate(stream);
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
    free(stream);
    return cudaSuccess;
}
SUCCEEDS(cudaStreamSynchronize, cudaStream_t stream)
SUCCEEDS(cudaDeviceSynchronize, void)
SUCCEEDS(cudaStreamWaitEvent, cudaStream_t stream, cudaEvent_t event, unsigned int flags)
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, enum cudaStreamCaptureStatus *status) {
    *status = cudaStreamCaptureStatusNone;
    return cudaSuccess;
}

cudaError_t cudaEventCreate(cudaEvent_t *event) {
    *event = malloc(1);
    return cudaSuccess;
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned int flags) {
    return cudaEventCreate(event);
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
    free(event);
    return cudaSuccess;
}
SUCCEEDS(cudaEventRecord, cudaEvent_t event, cudaStream_t stream)
SUCCEEDS(cudaEventRecordWithFlags, cudaEvent_t event, cudaStream_t stream, unsigned int flags)
SUCCEEDS(cudaEventSynchronize, cudaEvent_t event)
cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t start, cudaEvent_t end) {
    *ms = 1;
    return cudaSuccess;
}
cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void *data) {
    function(data);
    return cudaSuccess;
}

SUCCEEDS(cudaStreamBeginCapture, cudaStream_t stream, enum cudaStreamCaptureMode mode)
SUCCEEDS(cudaStreamEndCapture, cudaStream_t stream, cudaGraph_t *graph)
SUCCEEDS(cudaGraphInstantiate, cudaGraphExec_t *exec, cudaGraph_t graph, unsigned long long flags)
SUCCEEDS(cudaGraphLaunch, cudaGraphExec_t exec, cudaStream_t stream)
SUCCEEDS(cudaGraphDestroy, cudaGraph_t graph)
SUCCEEDS(cudaGraphExecDestroy, cudaGraphExec_t exec)

/* --- kernels ---------------------------------------------------------------------------------- */

void **__cudaRegisterFatBinary(void *binary) { return malloc(sizeof(void *)); }
void __cudaRegisterFatBinaryEnd(void **handle) {}
void __cudaUnregisterFatBinary(void **handle) { free(handle); }
void __cudaRegisterFunction(void **handle, const char *host, char *device, const char *name,
                            int limit, uint3 *tid, uint3 *bid, dim3 *block, dim3 *grid,
                            int *warp) {}
void __cudaRegisterVar(void **handle, char *host, char *device, const char *name, int ext,
                       size_t size, int constant, int global) {}

static __thread dim3 pushed_grid, pushed_block;
static __thread size_t pushed_shared;
static __thread void *pushed_stream;

unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared,
                                     struct CUstream_st *stream) {
    pushed_grid = grid;
    pushed_block = block;
    pushed_shared = shared;
    pushed_stream = stream;
    return 0;
}
cudaError_t __cudaPopCallConfiguration(dim3 *grid, dim3 *block, size_t *shared, void *stream) {
    *grid = pushed_grid;
    *block = pushed_block;
    *shared = pushed_shared;
    *(void **)stream = pushed_stream;
    return cudaSuccess;
}
cudaError_t __cudaGetKernel(cudaKernel_t *kernel, const void *function) {
    *kernel = (cudaKernel_t)function;
    return cudaSuccess;
}
SUCCEEDS(__cudaLaunchKernel, cudaKernel_t kernel, dim3 grid, dim3 block, void **arguments,
         size_t shared, cudaStream_t stream)
SUCCEEDS(cudaLaunchKernel, const void *function, dim3 grid, dim3 block, void **arguments,
         size_t shared, cudaStream_t stream)
SUCCEEDS(cudaLaunchCooperativeKernel, const void *function, dim3 grid, dim3 block,
         void **arguments, size_t shared, cudaStream_t stream)
SUCCEEDS(cudaLaunchKernelExC, const cudaLaunchConfig_t *config, const void *function,
         void **arguments)
SUCCEEDS(cudaKernelSetAttributeForDevice, cudaKernel_t kernel, enum cudaFuncAttribute attribute,
         int value, int device)
SUCCEEDS(cudaFuncSetAttribute, const void *function, enum cudaFuncAttribute attribute, int value)
SUCCEEDS(cudaLibraryUnload, cudaLibrary_t library)
cudaError_t cudaLibraryLoadData(cudaLibrary_t *library, const void *code,
                                enum cudaJitOption *jit_options, void **jit_values,
                                unsigned int num_jit, enum cudaLibraryOption *options,
                                void **values, unsigned int num) {
    *library = (cudaLibrary_t)1;
    return cudaSuccess;
}
cudaError_t cudaLibraryGetKernel(cudaKernel_t *kernel, cudaLibrary_t library, const char *name) {
    *kernel = (cudaKernel_t)name;
    return cudaSuccess;
}
cudaError_t cudaFuncGetAttributes(struct cudaFuncAttributes *attributes, const void *function) {
    memset(attributes, 0, sizeof *attributes);
    attributes->maxThreadsPerBlock = 1024;
    attributes->numRegs = 32;
    attributes->binaryVersion = attributes->ptxVersion = 90;
    attributes->maxDynamicSharedSizeBytes = 49152;
    return cudaSuccess;
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *blocks,
                                                                   const void *function,
                                                                   int block_size, size_t shared,
                                                                   unsigned int flags) {
    *blocks = 2;
    return cudaSuccess;
}

/* --- the device: about an H100 ---------------------------------------------------------------- */

cudaError_t cudaGetDevice(int *device) {
    *device = 0;
    return cudaSuccess;
}
cudaError_t cudaGetDeviceCount(int *count) {
    *count = 1;
    return cudaSuccess;
}
SUCCEEDS(cudaSetDevice, int device)
cudaError_t cudaDriverGetVersion(int *version) {
    *version = 13000;
    return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int *version) { return cudaDriverGetVersion(version); }

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *device, int number) {
    memset(device, 0, sizeof *device);
    strcpy(device->name, "pretend device");
    device->major = 9;
    device->totalGlobalMem = 80ull << 30;
    device->multiProcessorCount = 132;
    device->warpSize = 32;
    device->regsPerBlock = 65536;
    device->sharedMemPerBlock = 49152;
    device->sharedMemPerBlockOptin = 232448;
    device->sharedMemPerMultiprocessor = 233472;
    device->totalConstMem = 65536;
    device->l2CacheSize = 50 << 20;
    device->maxThreadsPerBlock = 1024;
    device->maxThreadsPerMultiProcessor = 2048;
    device->maxThreadsDim[0] = device->maxThreadsDim[1] = 1024;
    device->maxThreadsDim[2] = 64;
    device->maxGridSize[0] = 2147483647;
    device->maxGridSize[1] = device->maxGridSize[2] = 65535;
    device->concurrentKernels = device->canMapHostMemory = device->unifiedAddressing = 1;
    return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attribute, int number) {
    struct cudaDeviceProp device;
    cudaGetDeviceProperties(&device, number);
    switch (attribute) {
        case cudaDevAttrComputeCapabilityMajor: *value = device.major; break;
        case cudaDevAttrComputeCapabilityMinor: *value = device.minor; break;
        case cudaDevAttrMultiProcessorCount: *value = device.multiProcessorCount; break;
        case cudaDevAttrMaxThreadsPerBlock: *value = device.maxThreadsPerBlock; break;
        case cudaDevAttrMaxSharedMemoryPerBlock: *value = device.sharedMemPerBlock; break;
        case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = device.sharedMemPerBlockOptin; break;
        case cudaDevAttrMaxGridDimX: *value = device.maxGridSize[0]; break;
        case cudaDevAttrMaxGridDimY: *value = device.maxGridSize[1]; break;
        default: *value = 1;
    }
    return cudaSuccess;
}

/* --- errors, and what the driver offers beyond: nothing ---------------------------------------- */

SUCCEEDS(cudaGetLastError, void)
SUCCEEDS(cudaPeekAtLastError, void)
const char *cudaGetErrorName(cudaError_t error) { return "error"; }
const char *cudaGetErrorString(cudaError_t error) { return "an error of the pretend runtime"; }
cudaError_t cudaGetDriverEntryPointByVersion(const char *symbol, void **function,
                                             unsigned int version, unsigned long long flags,
                                             enum cudaDriverEntryPointQueryResult *result) {
    *function = NULL;
    if (result) *result = cudaDriverEntryPointSymbolNotFound;
    return cudaErrorUnknown;
}

cudaError_t cudaMemPoolCreate(cudaMemPool_t *pool, const struct cudaMemPoolProps *properties) {
    *pool = (cudaMemPool_t)1;
    return cudaSuccess;
}
SUCCEEDS(cudaMemPoolDestroy, cudaMemPool_t pool)
SUCCEEDS(cudaMemPoolSetAttribute, cudaMemPool_t pool, enum cudaMemPoolAttr attribute, void *value)
SUCCEEDS(cudaMemPoolTrimTo, cudaMemPool_t pool, size_t size)
cudaError_t cudaMemPoolGetAttribute(cudaMemPool_t pool, enum cudaMemPoolAttr attribute,
                                    void *value) {
    memset(value, 0, sizeof(long long));
    return cudaSuccess;
}
