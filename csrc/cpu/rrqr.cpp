// torch.ops.recyclelora.rrqr on the CPU: one matrix a thread.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <numeric>
#include <optional>
#include <tuple>
#include <vector>

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include "../interruption.h"
#include "../rrqr_check.h"
#include "rrqr_gram.h"
#include "rrqr_greedy.h"
#include "rrqr_matrix.h"

namespace recyclelora {
namespace {

constexpr int64_t kGram = 129;  // columns from which on the Gram matrix is worth its checks

// Where one matrix's results go; shapes as rrqr returns them.
template <typename T>
struct Outputs {
  int64_t* perm;
  View<T> q_major, q_minor;
  T* r_diag;
};

// The pivots, then the other columns in ascending order.
void write_perm(const std::vector<int64_t>& pivots, int64_t cols, int64_t* perm) {
  std::vector<char> taken(cols);
  for (int64_t pivot : pivots) taken[pivot] = true;
  perm = std::copy(pivots.begin(), pivots.end(), perm);
  for (int64_t j = 0; j < cols; ++j) {
    if (!taken[j]) *perm++ = j;
  }
}

// Among columns that tie, rounding may put a larger value second: not by more than the noise.
template <typename T, typename QR>
void write_r_diag(const QR& qr, const Matrix& matrix, T* r_diag) {
  double smallest = std::numeric_limits<double>::infinity();
  for (size_t i = 0; i < qr.diagonal().size(); ++i) {
    const int exponent = matrix.exponent(qr.pivots()[i]);
    smallest = std::min(smallest, std::ldexp(std::abs(qr.diagonal()[i]), exponent));
    *r_diag++ = static_cast<T>(smallest);
  }
}

template <typename T, typename QR>
void write_q(const QR& qr, int64_t first, View<T> out) {
  std::vector<double> storage(out.rows * out.cols);
  const auto q = column_major(storage.data(), out.rows, out.cols, out.rows);
  qr.columns_of_q(first, q);
  for (int64_t i = 0; i < out.rows; ++i) {
    for (int64_t j = 0; j < out.cols; ++j) out(i, j) = static_cast<T>(q(i, j));
  }
}

template <typename T, typename QR>
void write(const QR& qr, const Matrix& matrix, const Outputs<T>& out) {
  write_perm(qr.pivots(), matrix.cols(), out.perm);
  write_r_diag(qr, matrix, out.r_diag);
  write_q(qr, 0, out.q_major);
  write_q(qr, qr.diagonal().size() - out.q_minor.cols, out.q_minor);
}

// gram, where given, is of the same shape.
template <typename T>
void decompose(const T* weight, int64_t d, int64_t k, GramQR* gram, const Outputs<T>& out) {
  Matrix matrix(weight, d, k);
  TORCH_CHECK_VALUE(matrix.finite(), "rrqr: weight holds NaN or Inf; expected finite values only");
  const int64_t n_q = out.q_major.cols + out.q_minor.cols;
  if (gram) {
    gram->decompose(matrix);
    if (gram->complete() && std::is_same_v<T, float> && 4 * n_q <= k) {
      write(*gram, matrix, out);
      return;
    }
  }
  GreedyQR qr(matrix);
  if (gram) qr.take(gram->pivots());
  qr.run();
  write(qr, matrix, out);
}

template <typename T>
void decompose_all(const at::Tensor& weight, const at::Tensor& perm, const at::Tensor& q_major,
                   const at::Tensor& q_minor, const at::Tensor& r_diag) {
  const int64_t d = weight.size(-2), k = weight.size(-1), m = std::min(d, k);
  const int64_t n_major = q_major.size(-1), n_minor = q_minor.size(-1);
  const int64_t count = c10::multiply_integers(weight.sizes().slice(0, weight.dim() - 2));
  const T* const input = weight.const_data_ptr<T>();
  const Outputs<T> first{
      perm.data_ptr<int64_t>(), row_major(q_major.data_ptr<T>(), d, n_major, n_major),
      row_major(q_minor.data_ptr<T>(), d, n_minor, n_minor), r_diag.data_ptr<T>()};
  const auto decompose_one = [&](int64_t i, GramQR* gram) {
    Outputs<T> out = first;
    out.perm += i * k;
    out.q_major.data += i * d * n_major;
    out.q_minor.data += i * d * n_minor;
    out.r_diag += i * m;
    decompose(input + i * d * k, d, k, gram, out);
  };
  std::atomic<int64_t> next{0};
  Interruptible call(count);
  // One matrix also gets a second task, which is idle. Inside a parallel region BLAS uses one
  // thread; otherwise its bits would depend on the number of threads.
  at::parallel_for(0, std::max<int64_t>(count, 2), 1, [&](int64_t, int64_t) {
    const Interruptible::Thread thread(call);
    std::optional<GramQR> gram;
    if (d >= k && k >= kGram) gram.emplace(d, k);
    for (int64_t i = next++; i < count; i = next++) {
      const Interruptible::Matrix matrix(call);
      decompose_one(i, gram ? &*gram : nullptr);
    }
    call.wait();
  });
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> rrqr_cpu(const at::Tensor& weight,
                                                                    int64_t n_major,
                                                                    int64_t n_minor) {
  check_rrqr(weight, n_major, n_minor);
  const at::Tensor input = weight.contiguous();
  const int64_t d = weight.size(-2), k = weight.size(-1);
  const auto empty = [&](std::initializer_list<int64_t> shape, at::ScalarType dtype) {
    std::vector<int64_t> sizes(weight.sizes().begin(), weight.sizes().end() - 2);
    sizes.insert(sizes.end(), shape);
    return at::empty(sizes, weight.options().dtype(dtype));
  };
  const at::ScalarType dtype = weight.scalar_type();
  const at::Tensor perm = empty({k}, at::kLong), q_major = empty({d, n_major}, dtype),
                   q_minor = empty({d, n_minor}, dtype), r_diag = empty({std::min(d, k)}, dtype);
  if (dtype == at::kDouble) {
    decompose_all<double>(input, perm, q_major, q_minor, r_diag);
  } else {
    decompose_all<float>(input, perm, q_major, q_minor, r_diag);
  }
  return {perm, q_major, q_minor, r_diag};
}

}  // namespace
}  // namespace recyclelora

TORCH_LIBRARY_IMPL(recyclelora, CPU, m) {
  m.impl("rrqr", &recyclelora::rrqr_cpu);
}
