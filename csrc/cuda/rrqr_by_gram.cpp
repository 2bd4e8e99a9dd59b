// P'W'W P = R'R, hence Q = W P R^-1, of which only the wanted columns are computed.

#include "rrqr_methods.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/zeros.h>

#include "rrqr_guess.h"
#include "rrqr_kernels.h"

namespace recyclelora {
namespace {

using at::Tensor;

constexpr double kEpsilon = std::numeric_limits<double>::epsilon();
// The largest accepted error of a squared pivot, relative to it. The diagonal of R then has an
// error below the precision of float32.
constexpr double kLoss = 0x1p-22;

// The largest error of the squared residual norm of every column of W P, in the steps of every
// panel (b, panels, k). As on the CPU (GramQR::follow_growth), an error E of W'W changes the square
// by [x; -1]' E [x; -1], where x = R_11^-1 R_12 expresses the columns by the pivots before the
// panel.
Tensor noise_of(const Guess& guess, const Tensor& inverse) {
  const auto& r = guess.r;
  const int64_t b = r.size(0), m = r.size(1), k = r.size(2), panels = (m + kPanel - 1) / kPanel;
  const Tensor noise = guess.squares.unsqueeze(1).repeat({1, panels, 1});
  // Rows of R_11^-1 and of x are multiplied by the norms of their pivots.
  const Tensor weighted = inverse * guess.squares.narrow(1, 0, m).sqrt().unsqueeze(2);
  const Tensor growth = at::zeros({b, m, k}, r.options());
  for (int64_t panel = 1; panel < panels; ++panel) {
    const int64_t end = panel * kPanel, begin = end - kPanel, rest = k - end;
    const Tensor x = growth.narrow(1, 0, end).narrow(2, end, rest);
    x.baddbmm_(weighted.narrow(1, 0, end).narrow(2, begin, kPanel),
               r.narrow(1, begin, kPanel).narrow(2, end, rest));
    const Tensor length = at::linalg_vector_norm(x, 2, {1});
    noise.select(1, panel).narrow(1, end, rest).addcmul_(length, length);
  }
  return noise.mul_(8 * std::sqrt(static_cast<double>(guess.w.size(1))) * kEpsilon);
}

// Return which columns of W P (b, k) are provably in the greedy order.
Tensor certify(const Guess& guess, const Tensor& inverse) {
  const int64_t d = guess.w.size(1), k = guess.w.size(2);
  const Tensor noise = noise_of(guess, inverse);
  const Tensor holds = at::empty(guess.perm.sizes(), guess.perm.options().dtype(at::kBool));
  Certificate certificate;
  certificate.r = guess.r.const_data_ptr<double>();
  certificate.squares = guess.squares.const_data_ptr<double>();
  certificate.noise = noise.const_data_ptr<double>();
  certificate.exponents = guess.exponents.const_data_ptr<int64_t>();
  certificate.holds = holds.mutable_data_ptr<bool>();
  // Three times the noise of the rule for ties (reference.py), so that the proof fails for all
  // columns that the rule could call a tie, whatever the rounding.
  certificate.tie = 12 * static_cast<double>(std::max(d, k)) * kEpsilon;
  certificate.loss = kLoss;
  certificate.batch = guess.r.size(0);
  certificate.k = k;
  certificate.m = guess.r.size(1);
  certify_order(certificate);
  return holds;
}

// Write the wanted columns of Q = W P R^-1. The Gram matrix loses digits, so they are corrected as
// in orthonormalise_ (rrqr_by_q.cpp): with Q'Q = I + E and U the upper half of E, by Q (I - U),
// where only the wanted columns of E and U are needed. What is left is about kLoss^2.
void write_columns(const Guess& guess, const Tensor& inverse, const Decomposition& out) {
  const auto& [perm, q_major, q_minor, r_diag] = out;
  const int64_t b = perm.size(0), k = perm.size(1), m = r_diag.size(1);
  const int64_t n_major = q_major.size(2), n_minor = q_minor.size(2), n = n_major + n_minor;
  const Tensor pivots = perm.narrow(1, 0, m).unsqueeze(2).expand({b, m, n});
  const auto combine = [&](const Tensor& coefficients) {
    return at::bmm(guess.w,
                   at::zeros({b, k, n}, guess.w.options()).scatter(1, pivots, coefficients));
  };
  const auto wanted = [&](const Tensor& x, int64_t dim) {
    return at::cat({x.narrow(dim, 0, n_major), x.narrow(dim, m - n_minor, n_minor)}, dim);
  };
  const Tensor q = combine(wanted(inverse, 2));
  const Tensor row = at::arange(m, perm.options()), column = wanted(row, 0);
  const Tensor error = at::bmm(inverse.mT(), at::bmm(guess.w.mT(), q).gather(1, pivots));
  const Tensor on_diagonal = (row.unsqueeze(1) == column).to(at::kDouble);
  const Tensor above = (row.unsqueeze(1) < column).to(at::kDouble);
  error.sub_(on_diagonal).mul_(above + 0.5 * on_diagonal);
  q.sub_(combine(at::bmm(inverse, error)));
  q_major.copy_(q.narrow(2, 0, n_major));
  q_minor.copy_(q.narrow(2, n_major, n_minor));
}

Tensor decompose_by_gram(const Tensor& weight, const Decomposition& out) {
  const auto& [perm, q_major, q_minor, r_diag] = out;
  const Guess guess = guess_pivots(weight);
  const Tensor inverse = invert_triangles(guess.r.narrow(2, 0, r_diag.size(1)));
  perm.copy_(guess.perm);
  write_columns(guess, inverse, out);
  write_diagonal(guess.r.diagonal(0, 1, 2), guess, r_diag);
  return state_of(certify(guess, inverse), guess);
}

// W, the Gram matrix, R twice, the growth, and the inverse triangle with temporary tensors.
int64_t memory_by_gram(int64_t d, int64_t k, int64_t m) {
  return 8 * (d * k + k * k + 3 * m * k + 5 * m * m);
}

}  // namespace

const Method kByGram{decompose_by_gram, memory_by_gram};

}  // namespace recyclelora
