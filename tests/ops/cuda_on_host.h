// Runs CUDA kernels on the host, so that what they compute is tested where there is no GPU, and so
// that the compiler's sanitizers watch them. Include it before a kernel's source, which must keep
// to what stands here; then `cuda_on_host::run(blocks, threads, kernel)` is a launch.
//
// A thread of a block is a thread of the host, so a missing __syncthreads() is a data race that
// ThreadSanitizer reports; blocks run one after the other, so `static` will do for __shared__.

#pragma once

#include <pthread.h>

#include <cmath>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

#define __device__
#define __global__
#define __launch_bounds__(...)
#define __shared__ static

namespace cuda_on_host {

struct Index {
  unsigned x;
};

class Barrier {
 public:
  explicit Barrier(unsigned threads) { pthread_barrier_init(&barrier_, nullptr, threads); }
  ~Barrier() { pthread_barrier_destroy(&barrier_); }
  Barrier(const Barrier&) = delete;
  Barrier& operator=(const Barrier&) = delete;
  void wait() { pthread_barrier_wait(&barrier_); }

 private:
  pthread_barrier_t barrier_;
};

struct Warp {
  Barrier barrier{32};
  uint64_t lanes[2][32];  // in turn, so that one barrier a shuffle will do
};

struct Block {
  Barrier barrier;
  std::vector<Warp> warps;
  explicit Block(unsigned threads) : barrier(threads), warps(threads / 32) {}
};

inline thread_local Index thread_index, block_index, block_size;
inline thread_local unsigned shuffles;
inline thread_local Block* block;

template <typename Kernel>
void run(unsigned blocks, unsigned threads, const Kernel& kernel) {
  for (unsigned b = 0; b < blocks; ++b) {
    Block shared(threads);
    std::vector<std::thread> running;
    for (unsigned t = 0; t < threads; ++t) {
      running.emplace_back([&, t] {
        block = &shared;
        thread_index = {t};
        block_index = {b};
        block_size = {threads};
        kernel();
      });
    }
    for (std::thread& thread : running) thread.join();
  }
}

}  // namespace cuda_on_host

#define threadIdx cuda_on_host::thread_index
#define blockIdx cuda_on_host::block_index
#define blockDim cuda_on_host::block_size

inline void __syncthreads() {
  cuda_on_host::block->barrier.wait();
}

template <typename T>
T __shfl_xor_sync(unsigned, T value, int lanes) {
  static_assert(sizeof(T) <= sizeof(uint64_t));
  auto& [barrier, turns] = cuda_on_host::block->warps[threadIdx.x / 32];
  uint64_t (&lane)[32] = turns[cuda_on_host::shuffles++ % 2];
  std::memcpy(&lane[threadIdx.x % 32], &value, sizeof(T));
  barrier.wait();
  std::memcpy(&value, &lane[threadIdx.x % 32 ^ lanes], sizeof(T));
  return value;
}
