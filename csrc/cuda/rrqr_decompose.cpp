// Pivoted QR of many matrices at once: a fast guess, followed by a proof.
//
// The guess: the Gram matrices W'W are formed in float64 and factorised, R'R = P'W'WP, by a
// Cholesky factorisation with diagonal pivoting. A kernel chooses the pivots of a panel, and a
// matrix product updates all Gram matrices. Squaring W loses digits, so Q = W P R^-1 is
// orthonormalised again (Cholesky QR, twice).
//
// The proof: R = Q'WP, computed without squares, must be triangular. Before each step, the residual
// norm of every column, which R contains, must be smaller than that of the pivot by more than the
// rounding errors. A matrix that fails is decomposed by the CPU kernel of the operator. The host
// waits once, at the end, for one number per matrix.

#include "rrqr_decompose.h"

#include <algorithm>
#include <limits>
#include <vector>

#include <ATen/TensorOperators.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/frexp.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/linalg_solve_triangular.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <c10/util/Exception.h>
#include <c10/util/Logging.h>
#include <c10/util/accumulate.h>

#include "rrqr_kernels.h"

namespace recyclelora {
namespace {

using at::Tensor;

constexpr int64_t kBlock = 64;      // cuBLAS's batched solver inverts triangles up to this size
constexpr int64_t kAtOnce = 65535;  // matrices: the most blocks of a CUDA grid in y and z

enum State : int64_t { kProven, kDoubtful, kNotFinite };

struct Factors {
  Tensor pivots;  // (b, m)
  Tensor rows;    // (b, m, k) R by the columns of W
};

// 2^exponent, made from bits, because pow() may round.
Tensor power_of_two(const Tensor& exponent) {
  return (exponent + 1023).bitwise_left_shift(52).view(at::kDouble);
}

// gram = beta gram + alpha a'a, on and below the diagonal blocks of the stripes. With beta = 0,
// gram is overwritten.
void add_product(const Tensor& gram, const Tensor& a, double beta, double alpha) {
  const int64_t k = a.size(2);
  for (int64_t first = 0; first < k; first += kStripe) {
    const int64_t height = std::min(kStripe, k - first);
    gram.narrow(1, first, height)
        .narrow(2, 0, first + height)
        .baddbmm_(a.narrow(2, first, height).mT(), a.narrow(2, 0, first + height), beta, alpha);
  }
}

// Factorise float64 matrices (b, d, k). Their columns have a largest magnitude near 1, and are
// those of W times 2^-exponents (b, k).
Factors factorise(const Tensor& w, const Tensor& exponents) {
  const int64_t b = w.size(0), k = w.size(2), m = std::min(w.size(1), k);
  const Tensor gram = at::empty({b, k, k}, w.options());
  add_product(gram, w, 0, 1);
  const Tensor norms = gram.diagonal(0, 1, 2).clone(at::MemoryFormat::Contiguous);
  // If the kernel stops early, the pivots must still be valid indices.
  const Tensor pivots = at::arange(m, w.options().dtype(at::kLong)).repeat({b, 1});
  const Tensor rows = at::zeros({b, m, k}, w.options());
  Panel panel;
  panel.gram = gram.const_data_ptr<double>();
  panel.rows = rows.mutable_data_ptr<double>();
  panel.norms = norms.mutable_data_ptr<double>();
  panel.exponents = exponents.const_data_ptr<int64_t>();
  panel.pivots = pivots.mutable_data_ptr<int64_t>();
  panel.k = k;
  panel.m = m;
  for (int64_t begin = 0; begin < m; begin += kPanel) {
    panel.begin = begin;
    panel.end = std::min(begin + kPanel, m);
    factor_panel(panel, b);
    if (panel.end < m) add_product(gram, rows.narrow(1, begin, panel.end - begin), 1, -1);
  }
  return {pivots, rows};
}

// The inverse of upper triangles (b, m, m), computed recursively by halves.
Tensor inverse_triangle(const Tensor& triangle) {
  const int64_t m = triangle.size(2), half = m / 2, rest = m - half;
  if (m <= kBlock) {
    const Tensor eye = at::eye(m, triangle.options()).expand_as(triangle);
    return at::linalg_solve_triangular(triangle, eye, /*upper=*/true);
  }
  const Tensor first = inverse_triangle(triangle.narrow(1, 0, half).narrow(2, 0, half));
  const Tensor last = inverse_triangle(triangle.narrow(1, half, rest).narrow(2, half, rest));
  const Tensor corner = triangle.narrow(1, 0, half).narrow(2, half, rest);
  const Tensor result = at::zeros_like(triangle);
  result.narrow(1, 0, half).narrow(2, 0, half).copy_(first);
  result.narrow(1, half, rest).narrow(2, half, rest).copy_(last);
  result.narrow(1, 0, half)
      .narrow(2, half, rest)
      .copy_(at::bmm(first, at::bmm(corner, last)).neg_());
  return result;
}

// Reduce the error E of Q'Q = I + E without changing the spans of the leading columns. Return 2
// |E|^2 (b), which bounds |Q'Q - I| afterwards. With I + E = (I + U)'(I + U), the exact result is Q
// (I + U)^-1. To first order, U is the upper half of E, and Q (I + U)^-1 is Q (I - U).
Tensor orthonormalise_(const Tensor& q) {
  const Tensor error = at::bmm(q.mT(), q);
  error.diagonal(0, 1, 2).sub_(1);
  const Tensor distance = error.square().sum({1, 2}).mul_(2);
  error.triu_();
  error.diagonal(0, 1, 2).mul_(0.5);
  q.sub_(at::bmm(q, error));
  return distance;
}

// Return for which matrices (b) the pivots are provably greedy, given R = Q'WP (b, m, k), the
// exponents of W P (b, k) and the distance of Q'Q from I.
Tensor is_greedy(const Tensor& r, const Tensor& w_p, const Tensor& exponents,
                 const Tensor& distance) {
  // The rule for ties (reference.py) assumes an error of 4 max(d, k) eps |w| in norms. The proof
  // uses three times this error on both sides, so it fails for all columns that the rule could call
  // a tie, whatever the rounding.
  const double precision = 12 * static_cast<double>(std::max(w_p.size(1), w_p.size(2))) *
                           std::numeric_limits<double>::epsilon();
  const Tensor noise = at::linalg_vector_norm(w_p, 2, {1}) * (distance + precision).unsqueeze(1);
  const Tensor holds = at::empty(noise.sizes(), noise.options().dtype(at::kBool));
  Proof proof;
  proof.r = r.const_data_ptr<double>();
  proof.noise = noise.const_data_ptr<double>();
  proof.exponents = exponents.const_data_ptr<int64_t>();
  proof.holds = holds.mutable_data_ptr<bool>();
  proof.batch = r.size(0);
  proof.k = r.size(2);
  proof.m = r.size(1);
  prove_order(proof);
  return holds.all(1);
}

// Fill `out` for the matrices (b, d, k), and return their State (b), which is on the device.
Tensor decompose_chunk(const Tensor& weight, const Decomposition& out) {
  const auto& [perm, q_major, q_minor, r_diag] = out;
  const int64_t b = weight.size(0), d = weight.size(1), k = weight.size(2), m = r_diag.size(1);
  const Tensor size = weight.abs().amax({1}).to(at::kDouble);
  // Powers of two make the scaling exact. Squares of huge and tiny values neither overflow nor
  // underflow.
  const Tensor exponents = std::get<1>(at::frexp(size)).to(at::kLong).clamp_(-1000, 1000);
  const Tensor w =
      weight.to(at::kDouble, /*non_blocking=*/false, /*copy=*/true, at::MemoryFormat::Contiguous);
  w.mul_(power_of_two(-exponents).unsqueeze(1));
  const auto [pivots, rows] = factorise(w, exponents);
  // First the pivots in their order, then the other columns in ascending order.
  const Tensor order = at::arange(m, k + m, pivots.options()).repeat({b, 1});
  const Tensor place = at::arange(m, pivots.options()).expand_as(pivots);
  perm.copy_(order.scatter(1, pivots, place).argsort(/*dim=*/int64_t{1}));

  const Tensor w_p = w.gather(2, perm.unsqueeze(1).expand({b, d, k}));
  const Tensor triangle = rows.gather(2, pivots.unsqueeze(1).expand({b, m, m}));
  const Tensor q = at::bmm(w_p.narrow(2, 0, m), inverse_triangle(triangle));
  Tensor distance = orthonormalise_(q);
  if (weight.scalar_type() == at::kDouble) distance = orthonormalise_(q);
  const Tensor r = at::bmm(q.mT(), w_p);
  const Tensor exponents_p = exponents.gather(1, perm);
  const double eps = weight.scalar_type() == at::kDouble ? std::numeric_limits<double>::epsilon()
                                                         : std::numeric_limits<float>::epsilon();
  const Tensor doubtful =
      is_greedy(r, w_p, exponents_p, distance).logical_and(distance <= eps / 8).logical_not();

  q_major.copy_(q.narrow(2, 0, q_major.size(2)));
  q_minor.copy_(q.narrow(2, m - q_minor.size(2), q_minor.size(2)));
  // Rounding may make the diagonal increase, by no more than the noise.
  const Tensor diagonal = r.diagonal(0, 1, 2) * power_of_two(exponents_p.narrow(1, 0, m));
  r_diag.copy_(std::get<0>(diagonal.cummin(1)));
  return doubtful.to(at::kLong).masked_fill_(at::isfinite(size).all(1).logical_not(), kNotFinite);
}

// Raise an error for NaN and Inf, and decompose the unproven matrices on the CPU.
void settle(const Tensor& weight, const Tensor& states, const Decomposition& out) {
  std::vector<int64_t> doubtful;
  for (int64_t i = 0; i < states.size(0); ++i) {
    const int64_t state = states.const_data_ptr<int64_t>()[i];
    TORCH_CHECK_VALUE(state != kNotFinite,
                      "rrqr: weight holds NaN or Inf; expected finite values only");
    if (state == kDoubtful) doubtful.push_back(i);
  }
  if (doubtful.empty()) return;
  LOG(INFO) << "rrqr: " << doubtful.size() << " of " << states.size(0) << " matrices of shape ("
            << weight.size(1) << ", " << weight.size(2)
            << ") were decomposed on the CPU, since the GPU could not prove their pivots";
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("recyclelora::rrqr", "")
                             .typed<Decomposition(const Tensor&, c10::SymInt, c10::SymInt)>();
  const auto& [perm, q_major, q_minor, r_diag] = out;
  const Tensor index = at::tensor(doubtful, at::kLong).to(weight.device());
  const auto [cpu_perm, cpu_q_major, cpu_q_minor, cpu_r_diag] =
      op.call(weight.index_select(0, index).cpu(), q_major.size(2), q_minor.size(2));
  perm.index_copy_(0, index, cpu_perm.to(weight.device()));
  q_major.index_copy_(0, index, cpu_q_major.to(weight.device()));
  q_minor.index_copy_(0, index, cpu_q_minor.to(weight.device()));
  r_diag.index_copy_(0, index, cpu_r_diag.to(weight.device()));
}

Decomposition narrow(const Decomposition& out, int64_t first, int64_t size) {
  const auto& [perm, q_major, q_minor, r_diag] = out;
  return {perm.narrow(0, first, size), q_major.narrow(0, first, size),
          q_minor.narrow(0, first, size), r_diag.narrow(0, first, size)};
}

int64_t divide_up(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

// The bytes that one matrix needs in float64: W, its Gram matrix, R, Q and temporary tensors.
int64_t memory_of_one(int64_t d, int64_t k, int64_t m) {
  return 8 * (2 * d * k + k * k + 2 * m * k + 2 * d * m + 5 * m * m);
}

}  // namespace

Decomposition decompose(const Tensor& input, int64_t n_major, int64_t n_minor, int64_t memory) {
  const int64_t d = input.size(-2), k = input.size(-1), m = std::min(d, k);
  const at::IntArrayRef batch = input.sizes().slice(0, input.dim() - 2);
  const int64_t count = c10::multiply_integers(batch);
  const Tensor weight = input.detach().reshape({count, d, k});
  const auto indices = weight.options().dtype(at::kLong);
  const Decomposition out{
      at::arange(k, indices).repeat({count, 1}), at::empty({count, d, n_major}, weight.options()),
      at::empty({count, d, n_minor}, weight.options()), at::empty({count, m}, weight.options())};
  if (count > 0 && m > 0) {
    const int64_t at_once = std::clamp<int64_t>(memory / memory_of_one(d, k, m), 1, kAtOnce);
    int64_t length = divide_up(count, divide_up(count, at_once));
    std::vector<Tensor> states;
    for (int64_t first = 0; first < count;) {
      const int64_t size = std::min(length, count - first);
      try {
        states.push_back(decompose_chunk(weight.narrow(0, first, size), narrow(out, first, size)));
        first += size;
      } catch (const c10::OutOfMemoryError&) {
        if (size == 1) throw;
        length = divide_up(size, 2);
      }
    }
    settle(weight, at::cat(states).cpu(), out);
  }
  const auto shaped = [&](const Tensor& x) {
    std::vector<int64_t> sizes = batch.vec();
    sizes.insert(sizes.end(), x.sizes().begin() + 1, x.sizes().end());
    return x.view(sizes);
  };
  const auto& [perm, q_major, q_minor, r_diag] = out;
  return {shaped(perm), shaped(q_major), shaped(q_minor), shaped(r_diag)};
}

}  // namespace recyclelora
