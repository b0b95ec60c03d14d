#pragma once

/// Before a function that a GPU's threads and the host both run, so that a test without a GPU can
/// drive the very code of a kernel.
#ifdef __CUDACC__
#define MOEVAR_HOST_DEVICE __host__ __device__
#else
#define MOEVAR_HOST_DEVICE
#endif

/// Before a loop of such a function that is to become straight code on a GPU.
#ifdef __CUDA_ARCH__
#define MOEVAR_UNROLL _Pragma("unroll")
#else
#define MOEVAR_UNROLL
#endif

/// In a kernel: the shared memory whose size its launch tells.
#ifdef __CUDACC__
#define MOEVAR_DYNAMIC_SHARED(type, name) extern __shared__ type name[]
#endif
