// P'W'W P = R'R, hence Q = W P R^-1, of which only the wanted columns are computed.

#include "rrqr_methods.h"

#include <cmath>
#include <limits>

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
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

// The largest error of the squared residual norm of every column of W P before every step (b, m,
// k). An error E of W'W changes the square by [x; -1]' E [x; -1], where x = R_11^-1 R_12 expresses
// the column by the earlier pivots. With T = R^-1, of which the rows are multiplied by the norms of
// the pivots, and a column r of R, the squared length of x before step j is the sum of r_a r_c
// (T'T)_ac over a, c < j. Each step adds r_j (2 y_j + (T'T)_jj r_j), y_j = sum_(a < j) (T'T)_ja
// r_a.
Tensor noise_of(const Guess& guess, const Tensor& inverse) {
  const auto& r = guess.r;
  const int64_t m = r.size(1), k = r.size(2);
  const Tensor weighted = inverse * guess.squares.narrow(1, 0, m).sqrt().unsqueeze(2);
  const Tensor products = at::empty_like(inverse);
  add_product(products, weighted, 0, 1);
  const Tensor lengths = products.diagonal(0, 1, 2).clone().unsqueeze(2);
  const Tensor y = at::bmm(products.tril_(-1), r);
  const Tensor square = y.mul_(2).addcmul_(lengths, r).mul_(r).cumsum_(1);
  // The sum above can be small where its terms are large, so its own rounding error counts: by the
  // inequality of Cauchy and Schwarz, the terms add up to at most the square of this sum.
  const Tensor sum = (lengths.sqrt() * r).abs_().cumsum_(1);
  square.clamp_min_(0).addcmul_(sum, sum, static_cast<double>(k) * kEpsilon);
  const Tensor noise = guess.squares.unsqueeze(1).repeat({1, m, 1});
  if (m > 1) noise.narrow(1, 1, m - 1).add_(square.narrow(1, 0, m - 1));
  return noise.mul_(8 * std::sqrt(static_cast<double>(guess.w.size(1))) * kEpsilon);
}

// Return which columns of W P (b, k) are provably in the greedy order.
Tensor certify(const Guess& guess, const Tensor& inverse) {
  const Tensor noise = noise_of(guess, inverse);
  const Tensor holds = at::empty(guess.perm.sizes(), guess.perm.options().dtype(at::kBool));
  Certificate certificate;
  certificate.r = guess.r.const_data_ptr<double>();
  certificate.squares = guess.squares.const_data_ptr<double>();
  certificate.noise = noise.const_data_ptr<double>();
  certificate.exponents = guess.exponents.const_data_ptr<int64_t>();
  certificate.holds = holds.mutable_data_ptr<bool>();
  certificate.tie = tie_noise(guess);
  certificate.loss = kLoss;
  certificate.batch = guess.r.size(0);
  certificate.k = guess.r.size(2);
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

// W, the Gram matrix, R, the noise with temporary tensors, and the inverse triangle with temporary
// tensors.
int64_t memory_by_gram(int64_t d, int64_t k, int64_t m) {
  return 8 * (d * k + k * k + 5 * m * k + 5 * m * m);
}

}  // namespace

const Method kByGram{decompose_by_gram, memory_by_gram};

}  // namespace recyclelora
