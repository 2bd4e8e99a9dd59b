// Blocked operations on triangular matrices, by matrix products. Columns are contiguous.

#pragma once

#include "linalg.h"

namespace recyclelora {

// x <- L^{-1} x and x <- L'^{-1} x, where L is the lower triangle of l.
void solve_lower(View<double> l, View<double> x);
void solve_lower_transposed(View<double> l, View<double> x);

// Make the columns of q orthonormal in their order, by a Cholesky factorisation of q'q, twice. The
// columns must be nearly orthonormal or few.
void orthonormalise(View<double> q);

}  // namespace recyclelora
