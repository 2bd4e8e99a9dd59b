#include "rrqr_guess.h"

#include <algorithm>
#include <limits>

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/frexp.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/linalg_solve_triangular.h>
#include <ATen/ops/zeros.h>

#include "rrqr_kernels.h"
#include "rrqr_methods.h"

namespace recyclelora {
namespace {

using at::Tensor;

constexpr int64_t kBlock = 64;  // cuBLAS's batched solver inverts triangles up to this size

// 2^exponent, made from bits, because pow() may round.
Tensor power_of_two(const Tensor& exponent) {
  return (exponent + 1023).bitwise_left_shift(52).view(at::kDouble);
}

// Set the pivots (b, m) and R (b, m, k) by the columns of W, given the exponents (b, k) of W's
// columns, and return the squared norms of the columns (b, k). A kernel chooses the pivots of a
// panel, and a matrix product updates all Gram matrices.
Tensor factorise(const Tensor& w, const Tensor& exponents, const Tensor& pivots,
                 const Tensor& rows) {
  const int64_t b = w.size(0), k = w.size(2), m = rows.size(1);
  const Tensor gram = at::empty({b, k, k}, w.options());
  add_product(gram, w, 0, 1);
  const Tensor squares = gram.diagonal(0, 1, 2).clone(at::MemoryFormat::Contiguous);
  const Tensor norms = squares.clone();
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
  return squares;
}

// The blocks (b, n, size, size) on the diagonals of matrices (b, n size, n size), as a view.
Tensor diagonal_blocks(const Tensor& matrices, int64_t size) {
  const int64_t b = matrices.size(0), n = matrices.size(1) / size;
  return matrices.view({b, n, size, n, size}).diagonal(0, 1, 3).permute({0, 3, 1, 2});
}

}  // namespace

void add_product(const Tensor& gram, const Tensor& a, double beta, double alpha) {
  const int64_t k = a.size(2);
  for (int64_t first = 0; first < k; first += kStripe) {
    const int64_t height = std::min(kStripe, k - first);
    gram.narrow(1, first, height)
        .narrow(2, 0, first + height)
        .baddbmm_(a.narrow(2, first, height).mT(), a.narrow(2, 0, first + height), beta, alpha);
  }
}

Guess guess_pivots(const Tensor& weight) {
  const int64_t b = weight.size(0), k = weight.size(2), m = std::min(weight.size(1), k);
  const Tensor size = weight.abs().amax({1}).to(at::kDouble);
  // Powers of two make the scaling exact. Squares of huge and tiny values neither overflow nor
  // underflow.
  const Tensor exponents = std::get<1>(at::frexp(size)).to(at::kLong).clamp_(-1000, 1000);
  const Tensor w =
      weight.to(at::kDouble, /*non_blocking=*/false, /*copy=*/true, at::MemoryFormat::Contiguous);
  w.mul_(power_of_two(-exponents).unsqueeze(1));
  // If the kernel stops early, the pivots must still be valid indices.
  const Tensor pivots = at::arange(m, exponents.options()).repeat({b, 1});
  const Tensor rows = at::zeros({b, m, k}, w.options());
  const Tensor squares = factorise(w, exponents, pivots, rows);
  const Tensor order = at::arange(m, k + m, pivots.options()).repeat({b, 1});
  const Tensor place = at::arange(m, pivots.options()).expand_as(pivots);
  const Tensor perm = order.scatter(1, pivots, place).argsort(/*dim=*/int64_t{1});
  return {w,
          perm,
          exponents.gather(1, perm),
          squares.gather(1, perm),
          rows.gather(2, perm.unsqueeze(1).expand({b, m, k})),
          at::isfinite(size).all(1)};
}

double tie_noise(const Guess& guess) {
  return 12 * static_cast<double>(std::max(guess.w.size(1), guess.w.size(2))) *
         std::numeric_limits<double>::epsilon();
}

// Blocks on the diagonal are inverted first, all in one call, and then joined in pairs until one
// is left: the inverse of [A C; 0 B] is [A^-1, -A^-1 C B^-1; 0, B^-1].
Tensor invert_triangles(const Tensor& triangles) {
  const int64_t b = triangles.size(0), m = triangles.size(1);
  int64_t blocks = 1;
  while (blocks * kBlock < m) blocks *= 2;
  const int64_t block = (m + blocks - 1) / blocks, padded = block * blocks;
  Tensor whole = triangles.contiguous();
  if (padded > m) {
    whole = at::eye(padded, triangles.options()).repeat({b, 1, 1});
    whole.narrow(1, 0, m).narrow(2, 0, m).copy_(triangles);
  }
  const Tensor smallest = diagonal_blocks(whole, block).reshape({b * blocks, block, block});
  const Tensor eye = at::eye(block, triangles.options()).expand_as(smallest);
  Tensor inverse = at::linalg_solve_triangular(smallest, eye, /*upper=*/true);
  for (int64_t size = block; size < padded; size *= 2) {
    const Tensor corner = diagonal_blocks(whole, 2 * size).narrow(2, 0, size).narrow(3, size, size);
    const Tensor first = inverse.slice(0, 0, {}, 2), last = inverse.slice(0, 1, {}, 2);
    const Tensor joined = at::zeros({first.size(0), 2 * size, 2 * size}, triangles.options());
    const Tensor left = joined.narrow(2, 0, size), right = joined.narrow(2, size, size);
    left.narrow(1, 0, size).copy_(first);
    right.narrow(1, size, size).copy_(last);
    right.narrow(1, 0, size)
        .baddbmm_(first, at::bmm(corner.reshape_as(last), last), /*beta=*/0, /*alpha=*/-1);
    inverse = joined;
  }
  return inverse.reshape({b, padded, padded}).narrow(1, 0, m).narrow(2, 0, m);
}

void write_diagonal(const Tensor& diagonal, const Guess& guess, const Tensor& out) {
  const Tensor exponents = guess.exponents.narrow(1, 0, diagonal.size(1));
  // Rounding may make the diagonal increase, by no more than the noise.
  out.copy_(std::get<0>((diagonal * power_of_two(exponents)).cummin(1)));
}

Tensor state_of(const Tensor& proven, const Guess& guess) {
  const Tensor doubtful = proven.all(1).logical_not().to(at::kLong);  // kProven or kDoubtful
  return doubtful.masked_fill_(guess.finite.logical_not(), kNotFinite);
}

}  // namespace recyclelora
