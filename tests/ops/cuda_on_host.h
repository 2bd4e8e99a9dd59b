// Run CUDA kernels on the host, so that tests need no GPU and the compiler's sanitizers can check
// the kernels. Include this file before the source of a kernel, which may use only what is defined
// here. `cuda_on_host::run(blocks, threads, kernel)` launches the kernel.
//
// A thread of a block is a thread of the host, so ThreadSanitizer reports a missing __syncthreads()
// as a data race. Shuffles exchange values by relaxed atomics. As on a GPU, they do not order the
// memory accesses around them. Blocks run one after the other, so `static` can replace __shared__.

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

// The value of a lane in two parts, each with the number of its shuffle; 0 means none.
struct Lane {
  std::atomic<uint64_t> parts[2] = {};
};

struct Warp {
  std::atomic<uint32_t> arrived{0};  // counts the lanes of all shuffles
  Lane lanes[2][32];                 // used in turn, so that one wait per shuffle is enough
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
  // All lanes have read the values of the previous turn.
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
