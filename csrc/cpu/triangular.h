// Blocked operations on triangular matrices, made of products. Columns are contiguous.

#pragma once

#include "linalg.h"

namespace recyclelora {

// x <- L^{-1} x and x <- L'^{-1} x, L being the lower triangle of l.
void solve_lower(View<double> l, View<double> x);
void solve_lower_transposed(View<double> l, View<double> x);

// Makes the columns of q orthonormal in their order, given that they nearly are or are few:
// Cholesky's decomposition of q'q, twice.
void orthonormalise(View<double> q);

}  // namespace recyclelora
