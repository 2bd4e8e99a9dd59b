#include "interruption.h"

#include <c10/util/Exception.h>

namespace {

std::atomic<int (*)()> interrupted_hook{nullptr};
std::atomic<int (*)(int64_t, int64_t)> progress_hook{nullptr};

}  // namespace

void recyclelora_set_hooks(int (*interrupted)(), int (*progress)(int64_t, int64_t)) {
  interrupted_hook = interrupted;
  progress_hook = progress;
}

namespace recyclelora {
namespace {

constexpr std::chrono::milliseconds kPeriod{100};  // between two calls of the hooks
thread_local Interruptible* current = nullptr;

}  // namespace

Interruptible::Interruptible(int64_t total)
    : total_(total),
      calling_thread_(std::this_thread::get_id()),
      asked_(std::chrono::steady_clock::now()) {}

Interruptible::Thread::Thread(Interruptible& call) : before_(current) {
  current = &call;
}

Interruptible::Thread::~Thread() {
  current = before_;
}

Interruptible::Matrix::~Matrix() {
  const std::lock_guard<std::mutex> lock(call_.mutex_);
  ++call_.finished_;
  call_.changed_.notify_all();
}

void Interruptible::check() {
  TORCH_CHECK(!stopped_, "rrqr was interrupted");
  if (!in_calling_thread() || std::chrono::steady_clock::now() - asked_ < kPeriod) return;
  report();
  ask();
}

void Interruptible::wait() {
  if (!in_calling_thread() || (!interrupted_hook.load() && !progress_hook.load())) return;
  std::unique_lock<std::mutex> lock(mutex_);
  while (!changed_.wait_for(lock, kPeriod, [&] { return finished_ == total_; })) {
    lock.unlock();
    report();
    ask();
    lock.lock();
  }
  lock.unlock();
  report();
}

void Interruptible::ask() {
  const auto interrupted = interrupted_hook.load();
  stopped_ = stopped_ || (interrupted && interrupted());
  TORCH_CHECK(!stopped_, "rrqr was interrupted");
  asked_ = std::chrono::steady_clock::now();
}

void Interruptible::report() {
  const auto progress = progress_hook.load();
  if (!progress) return;
  std::unique_lock<std::mutex> lock(mutex_);
  const int64_t finished = finished_;
  lock.unlock();
  while (reported_ < finished) {
    ++reported_;
    stopped_ = stopped_ || progress(reported_, total_);
    TORCH_CHECK(!stopped_, "rrqr was interrupted");
  }
}

void check_interruption() {
  if (current) current->check();
}

}  // namespace recyclelora
