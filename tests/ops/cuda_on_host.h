// Runs CUDA kernels on the host, so that what they compute is tested where there is no GPU, and so
// that the compiler's sanitizers watch them. Include it before a kernel's source, which must keep
// to what stands here; then `cuda_on_host::run(blocks, threads, kernel)` is a launch.
//
// A thread of a block is a thread of the host, so a missing __syncthreads() is a data race that
// ThreadSanitizer reports. Shuffles exchange values by relaxed atomics: as on a GPU, they do not
// order the memory accesses around them. Blocks run one after the other, so `static` will do for
// __shared__.

#pragma once

#include <pthread.h>

#include <atomic>
#include <cmath>
#include <cstdint>
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

// A lane's value in two parts, each with the number of its shuffle: 0 is none.
struct Lane {
  std::atomic<uint64_t> parts[2] = {};
};

struct Warp {
  std::atomic<uint32_t> arrived{0};  // over all shuffles
  Lane lanes[2][32];                 // in turn, so that one wait a shuffle will do
};

struct Block {
  Barrier barrier;
  std::vector<Warp> warps;
  explicit Block(unsigned threads) : barrier(threads), warps(threads / 32) {}
};

inline thread_local Index thread_index, block_index, block_size;
inline thread_local uint32_t shuffles;
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
  static_assert(sizeof(T) == sizeof(uint64_t));
  constexpr auto kRelaxed = std::memory_order_relaxed;
  auto& warp = cuda_on_host::block->warps[threadIdx.x / 32];
  const uint32_t turn = ++cuda_on_host::shuffles;
  auto& turns = warp.lanes[turn % 2];
  uint64_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  auto& mine = turns[threadIdx.x % 32].parts;
  mine[0].store(uint64_t{turn} << 32 | bits >> 32, kRelaxed);
  mine[1].store(uint64_t{turn} << 32 | (bits & 0xffffffff), kRelaxed);
  // All lanes have read what they read in the turn before.
  warp.arrived.fetch_add(1, kRelaxed);
  while (warp.arrived.load(kRelaxed) < 32 * turn) std::this_thread::yield();
  bits = 0;
  for (auto& part : turns[threadIdx.x % 32 ^ lanes].parts) {
    uint64_t read = part.load(kRelaxed);
    while (read >> 32 != turn) read = part.load(kRelaxed);
    bits = bits << 32 | (read & 0xffffffff);
  }
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}
