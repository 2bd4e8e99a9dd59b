// An orthogonal matrix as a product of Householder reflections, kept in panels.

#pragma once

#include <vector>

#include "large_array.h"
#include "linalg.h"
#include "reflect_columns.h"

namespace recyclelora {

// Columns of float64 in whole cache lines, initially zero. Their number is a multiple of
// kReflected.
class Columns {
 public:
  Columns(int64_t rows, int64_t count)
      : lines_(lines_of<double>(rows)),
        count_(groups_of(count) * kReflected),
        values_(lines_ * count_) {}

  int64_t lines() const { return lines_; }
  int64_t count() const { return count_; }
  int64_t stride() const { return lines_ * Line<double>::kCount; }  // doubles from one to the next
  Line<double>* data() { return values_.data(); }
  const Line<double>* data() const { return values_.data(); }
  double* column(int64_t j) { return values_[j * lines_].values; }
  const double* column(int64_t j) const { return values_[j * lines_].values; }

 private:
  int64_t lines_, count_;
  std::vector<Line<double>, LargeAllocator<Line<double>>> values_;
};

// Q = H_0 H_1 ... with H_i = I - tau_i y_i y_i', where y_i is zero above row i and one in row i.
// The product of a panel is I - Y T Y' with T upper triangular (the compact WY form), so that many
// reflections are applied to a column at once.
class Reflectors {
 public:
  Reflectors(int64_t rows, int64_t capacity);

  int64_t count() const { return static_cast<int64_t>(tau_.size()); }

  // Appends the reflection that maps the rows from count() on of x to a multiple of the unit
  // vector, which it returns; y_i is left in vector(i).
  double append(const double* x);
  const double* vector(int64_t i) const { return y_.column(i); }
  double tau(int64_t i) const { return tau_[i]; }

  // Closes the panel of the reflections appended since the last call, so that they can be applied.
  // They join the last panel if it is small.
  void close_panel();
  // Drops the reflections from `first` on. All panels must be closed.
  void truncate(int64_t first);

  // c <- Q' c and c <- Q c, by the closed panels.
  void apply_transposed(Columns* c) const;
  void apply(Columns* c) const;

  // The product of some reflections, I - Y T Y'; y has the rows from `first` on.
  struct Block {
    int64_t first;
    View<const double> y, t;
  };
  // The reflections of closed panels from `first` on, as consecutive blocks.
  std::vector<Block> blocks(int64_t first) const;

 private:
  struct Panel {
    int64_t first, size;
    std::vector<double> t;  // column-major, size x size
  };
  View<const double> y(const Panel& panel) const;  // the rows from panel.first on
  void apply_panel(const Panel& panel, bool transposed, Columns* c) const;

  int64_t rows_;
  Columns y_;
  std::vector<double> tau_;
  std::vector<Panel> panels_;
};

// x <- (I - tau y y') x over n rows, with y[0] = 1. Returns the squared norm of x[1:] afterwards.
double reflect(const double* y, double tau, double* x, int64_t n);

}  // namespace recyclelora
