// An orthogonal matrix as a product of Householder reflections, kept in panels.

#pragma once

#include <vector>

#include "linalg.h"

namespace recyclelora {

// Q = H_0 H_1 ... with H_i = I - tau_i y_i y_i', where y_i is zero above row i and one in it. A
// panel's product is I - Y T Y' with T upper triangular (the compact WY form), so whole panels are
// applied by matrix products.
class Reflectors {
 public:
  static constexpr int64_t kPanel = 64;

  Reflectors(int64_t rows, int64_t capacity);

  int64_t count() const { return static_cast<int64_t>(tau_.size()); }

  // Appends the reflection that maps the rows from count() on of x to a multiple of the unit
  // vector, which it returns; y_i is left in vector(i).
  double append(const double* x);
  const double* vector(int64_t i) const { return y_.data() + i * rows_; }
  double tau(int64_t i) const { return tau_[i]; }

  // Makes the reflections appended since the last call applicable; they join the last panel where
  // it is small and does not begin before earliest.
  void close_panel(int64_t earliest = 0);

  // c <- Q' c and c <- Q c, for c with all rows. Only closed panels take part that begin at first
  // or later.
  void apply_transposed(View<double> c, int64_t first = 0) const;
  void apply(View<double> c, int64_t first = 0) const;

 private:
  struct Panel {
    int64_t first, size;
    std::vector<double> t;  // column-major, size x size
  };
  View<double> y(const Panel& panel) const;  // the rows from panel.first on
  void apply_panel(const Panel& panel, View<double> c, bool transposed) const;

  int64_t rows_;
  std::vector<double> y_;  // column-major, rows x capacity
  std::vector<double> tau_;
  std::vector<Panel> panels_;
};

// x <- (I - tau y y') x over n rows, y[0] being one; returns the squared norm of x[1:] after it.
double reflect(const double* y, double tau, double* x, int64_t n);

}  // namespace recyclelora
