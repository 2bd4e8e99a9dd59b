// The product of a matrix with its own transpose, where rrqr of tall matrices spends its time.

#pragma once

#include "linalg.h"

namespace recyclelora {

// c = beta c + alpha a a' in c's lower triangle; what is above is left undefined. The columns of a
// and c are contiguous.
void add_gram(View<double> c, double beta, double alpha, View<double> a);

}  // namespace recyclelora
