// What both methods of rrqr on a GPU begin and end with.

#pragma once

#include <ATen/core/Tensor.h>

namespace recyclelora {

// Pivots by a Cholesky factorisation of the Gram matrix with diagonal pivoting, R'R = P'W'W P. The
// matrices are float64; their columns have a largest magnitude near 1, and are those of the weight
// times 2^-exponents.
struct Guess {
  at::Tensor w;          // (b, d, k)
  at::Tensor perm;       // (b, k): the pivots, then the other columns in ascending order
  at::Tensor exponents;  // (b, k) of the columns of W P
  at::Tensor squares;    // (b, k): the squared norms of the columns of W P
  at::Tensor r;          // (b, m, k), by the columns of W P
  at::Tensor finite;     // (b) bool: whether all values of the weight are finite
};

Guess guess_pivots(const at::Tensor& weight);

// Three times the noise of the rule for ties (reference.py), relative to the norm of a column. With
// it, a proof fails for all columns that the rule could call a tie, whatever the rounding.
double tie_noise(const Guess& guess);

// gram = beta gram + alpha a'a (b, k, k), on and below the diagonal blocks of stripes of rows. With
// beta = 0, gram is overwritten.
void add_product(const at::Tensor& gram, const at::Tensor& a, double beta, double alpha);

// The inverses of upper triangles (b, m, m).
at::Tensor invert_triangles(const at::Tensor& triangles);

// Write the diagonals of R (b, m) to `out`, for the weight instead of the scaled matrices.
void write_diagonal(const at::Tensor& diagonal, const Guess& guess, const at::Tensor& out);

// The State (b) of matrices, given whether all columns (b, k) are proven.
at::Tensor state_of(const at::Tensor& proven, const Guess& guess);

}  // namespace recyclelora
