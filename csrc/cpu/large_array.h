// Memory for arrays of megabytes, in cache lines.

#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace recyclelora {

// A cache line. Columns are stored in whole lines.
template <typename T>
struct alignas(64) Line {
  static constexpr int64_t kCount = 64 / sizeof(T);
  T values[kCount];
};

template <typename T>
int64_t lines_of(int64_t rows) {
  return (rows + Line<T>::kCount - 1) / Line<T>::kCount;
}

constexpr std::size_t kHugePage = 2 << 20;

// Returns memory that is not initialised and begins with a cache line. Linux is asked to use huge
// pages for it. Otherwise the columns of a matrix are in more pages than the TLB has entries, and
// each page costs a fault.
inline void* allocate_large(std::size_t bytes) {
  void* memory = nullptr;
  const std::size_t huge = bytes / kHugePage * kHugePage;
  if (posix_memalign(&memory, huge ? kHugePage : 64, bytes) != 0) throw std::bad_alloc();
#ifdef MADV_HUGEPAGE
  if (huge) madvise(memory, huge, MADV_HUGEPAGE);  // has no effect where refused
#endif
  return memory;
}

struct FreeLarge {
  void operator()(void* memory) const { std::free(memory); }
};

template <typename T>
using LargeArray = std::unique_ptr<T[], FreeLarge>;

template <typename T>
LargeArray<T> large_array(int64_t size) {
  return LargeArray<T>(static_cast<T*>(allocate_large(size * sizeof(T))));
}

// For containers.
template <typename T>
struct LargeAllocator {
  using value_type = T;
  LargeAllocator() = default;
  template <typename U>
  LargeAllocator(const LargeAllocator<U>&) {}
  T* allocate(std::size_t size) { return static_cast<T*>(allocate_large(size * sizeof(T))); }
  void deallocate(T* memory, std::size_t) { std::free(memory); }
  friend bool operator==(const LargeAllocator&, const LargeAllocator&) { return true; }
  friend bool operator!=(const LargeAllocator&, const LargeAllocator&) { return false; }
};

}  // namespace recyclelora
