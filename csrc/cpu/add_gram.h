// The product of a matrix with its transpose, which takes most of the time of rrqr for tall
// matrices.

#pragma once

#include "linalg.h"

namespace recyclelora {

// c = beta c + alpha a a' in the lower triangle of c; the upper triangle is undefined. The columns
// of a and c are contiguous.
void add_gram(View<double> c, double beta, double alpha, View<double> a);

}  // namespace recyclelora
