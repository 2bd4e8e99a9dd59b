// Long calls report their progress and can end early, for example on Ctrl-C.
//
// This library does not depend on Python. A program registers two functions, which the thread that
// called the operator calls while the operator works:
//
//   recyclelora_set_hooks(&interrupted, &progress);
//
// csrc/python/interruption.cpp does this for Python. Without them, calls run to their end.

#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>

extern "C" {
// `interrupted` returns whether the call must end. `progress` receives the number of each finished
// matrix, counted from 1, and the number of all matrices. It also returns whether the call must
// end.
[[gnu::visibility("default")]] void recyclelora_set_hooks(int (*interrupted)(),
                                                          int (*progress)(int64_t, int64_t));
}

namespace recyclelora {

// A call that decomposes `total` matrices in several threads.
class Interruptible {
 public:
  // Must be constructed in the thread that called the operator.
  explicit Interruptible(int64_t total);

  // Must be constructed in each thread of the call, so that check_interruption() refers to this
  // call.
  class Thread {
   public:
    explicit Thread(Interruptible& call);
    ~Thread();
    Thread(const Thread&) = delete;
    Thread& operator=(const Thread&) = delete;

   private:
    Interruptible* before_;
  };

  // The decomposition of one matrix. It counts as finished at the end of the scope, even if it
  // fails.
  class Matrix {
   public:
    explicit Matrix(Interruptible& call) : call_(call) {}
    ~Matrix();
    Matrix(const Matrix&) = delete;
    Matrix& operator=(const Matrix&) = delete;

   private:
    Interruptible& call_;
  };

  // Throws an error if the call must end.
  void check();

  // Must be called in each thread when no matrix is left. The calling thread waits for the others,
  // because only it may call the hooks.
  void wait();

 private:
  bool in_calling_thread() const { return std::this_thread::get_id() == calling_thread_; }
  void report();
  void ask();

  const int64_t total_;
  const std::thread::id calling_thread_;
  std::chrono::steady_clock::time_point asked_;
  int64_t reported_ = 0;
  std::atomic<bool> stopped_{false};
  std::mutex mutex_;
  std::condition_variable changed_;
  int64_t finished_ = 0;  // guarded by mutex_
};

// Throws an error if the present call must end. It takes little time, so loops call it between
// their panels.
void check_interruption();

}  // namespace recyclelora
