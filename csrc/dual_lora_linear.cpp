// The dual-adapter linear layer y = x W' + b + s (x A') B' and its gradients, on the CPU and CUDA.
// The matrix products are those of PyTorch. With `columns`, A uses only these columns of x.
//
// If x has many rows, or the weight is small, s B A is added to the weight in a workspace. If x has
// few rows, or `columns` is given, the products are added instead: (x A') B' to y, and (dy B) A to
// dx.

#include <array>
#include <optional>
#include <tuple>

#include <ATen/autocast_mode.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/mm.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <torch/library.h>

#include "workspace.h"

namespace recyclelora {
namespace {

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;

// Casts to the same dtype are skipped, because the time of a small layer is that of its operators
// on the host.
Tensor cast(const Tensor& tensor, at::ScalarType dtype) {
  return tensor.scalar_type() == dtype ? tensor : tensor.to(dtype);
}

// The constants of a layer, and the dtype of the computation, which is that of x. Under autocast
// this is a half precision, and the parameters are float32.
struct Layer {
  const Tensor& weight;  // (out, in)
  const Tensor& A;       // (r, in), or (r, columns)
  const Tensor& B;       // (out, r)
  double scaling;
  const OptionalTensor& columns;
  at::ScalarType dtype;

  Tensor rounded(const Tensor& tensor) const { return cast(tensor, dtype); }
  Tensor scaled(const Tensor& factor) const { return rounded(factor.mul(scaling)); }

  Tensor plain_weight() const {
    if (weight.scalar_type() == dtype) return weight;
    return workspace(weight.sizes(), weight.options().dtype(dtype), 0).copy_(weight);
  }

  // W + s B A, summed in float32 or wider and rounded once, because sums in half precision would
  // lose the update. If the weight has the dtype of the computation, addmm accumulates in float32
  // or wider. Otherwise the sum is computed in a float32 workspace.
  Tensor effective_weight() const {
    const bool mixed = weight.scalar_type() != dtype;
    const at::ScalarType wide = mixed ? at::kFloat : dtype;
    const Tensor wide_A = cast(A, wide), wide_B = cast(B, wide);
    Tensor sum = workspace(weight.sizes(), weight.options().dtype(dtype), 0);
    if (!mixed) return at::addmm_out(sum, weight, wide_B, wide_A, 1, scaling);
    Tensor exact = workspace(weight.sizes(), weight.options().dtype(wide), 1);
    at::addmm_out(exact, cast(weight, wide), wide_B, wide_A, 1, scaling);
    return sum.copy_(exact);
  }
};

// Whether to add s B A to the weight (out, in), instead of adding (x A') B' to y (rows, out), where
// `other` is `in`, or (dy B) A to dx (rows, in), where `other` is `out`. The numbers of operations
// are equal at rows = other. Measured on a CPU (the shapes of DINOv2-L, float32 and bfloat16), the
// times are equal at twice as many rows: adding to the weight reads and writes the whole weight,
// whereas the large product is added to the small one without an additional pass.
bool into_weight(int64_t rows, int64_t other) {
  return rows > 2 * other;
}

// Whether s B A is so cheap that it is added to the weight for few rows too, which takes at most
// about 70 microseconds on one core. This is more accurate: where s B A is much larger than W0
// (heads that timm scales by 0.001), x W' and (x A') B' cancel, and each is rounded at its own
// size.
bool is_small(const Tensor& weight, int64_t rank) {
  constexpr int64_t kMostProducts = int64_t{1} << 21;
  return weight.numel() * rank <= kMostProducts;
}

// (rows, width): x with its leading dimensions joined, without a copy if the strides allow it.
Tensor as_matrix(const Tensor& x) {
  if (x.dim() == 2) return x;
  return x.reshape({c10::size_to_dim_(static_cast<int>(x.dim() - 1), x.sizes()), x.size(-1)});
}

// x[:, columns]. On the CPU the indices are checked first, because the error of index_select does
// not contain the index. On CUDA index_select itself asserts on the device.
Tensor select_columns(const Tensor& x, const Tensor& columns) {
  if (columns.device().is_cpu()) {
    const Tensor index = columns.contiguous();
    for (int64_t i = 0; i < index.numel(); ++i) {
      const int64_t column = index.const_data_ptr<int64_t>()[i];
      TORCH_CHECK_INDEX(0 <= column && column < x.size(1), "dual_lora_linear: columns must be 0..",
                        x.size(1) - 1, ", the columns of x, got ", column);
    }
  }
  return at::index_select(x, 1, columns);
}

Tensor with_width(const Tensor& matrix, const Tensor& like) {
  if (like.dim() == 2) return matrix;
  auto shape = like.sizes().vec();
  shape.back() = matrix.size(1);
  return matrix.view(shape);
}

// One of the two adapters. The products use the joined factors of both.
struct Adapter {
  const char* name;
  const Tensor& A;  // (r, in), or (r, columns)
  const Tensor& B;  // (out, r)
};

void check(const Tensor& x, const Tensor& weight, const OptionalTensor& bias, const Adapter& main,
           const Adapter& sub, const OptionalTensor& columns) {
  TORCH_CHECK_VALUE(weight.dim() == 2 && weight.numel() > 0,
                    "dual_lora_linear: weight must be (out, in), got shape ", weight.sizes());
  const int64_t out = weight.size(0), in = weight.size(1);
  TORCH_CHECK_VALUE(x.dim() >= 1 && x.size(-1) == in, "dual_lora_linear: x must be (..., ", in,
                    ") for a weight of shape ", weight.sizes(), ", got ", x.sizes());
  TORCH_CHECK_VALUE(!bias || (bias->dim() == 1 && bias->size(0) == out),
                    "dual_lora_linear: bias must be (", out, ",), got shape ", bias->sizes());
  TORCH_CHECK_VALUE(!columns || (columns->dim() == 1 && columns->scalar_type() == at::kLong),
                    "dual_lora_linear: columns must be (n,) and int64, got shape ",
                    columns->sizes(), " and ", columns->scalar_type());
  const int64_t inputs = columns ? columns->numel() : in;
  for (const auto& [name, A, B] : {main, sub}) {
    TORCH_CHECK_VALUE(A.dim() == 2 && A.size(1) == inputs, "dual_lora_linear: A_", name,
                      " must be (r, ", inputs, "), got shape ", A.sizes());
    TORCH_CHECK_VALUE(B.dim() == 2 && B.size(0) == out && B.size(1) == A.size(0),
                      "dual_lora_linear: B_", name, " must be (", out, ", ", A.size(0),
                      "), got shape ", B.sizes());
  }
  TORCH_CHECK_VALUE(main.A.size(0) + sub.A.size(0) > 0,
                    "dual_lora_linear: A_main and A_sub must have at least one row together");
  for (const Tensor* tensor : {&x, &weight, &main.A, &main.B, &sub.A, &sub.B}) {
    TORCH_CHECK_VALUE(
        at::isFloatingType(tensor->scalar_type()) &&
            (tensor->scalar_type() == at::kDouble) == (weight.scalar_type() == at::kDouble),
        "dual_lora_linear: x, weight and the factors must be floating and all or none of them "
        "float64, got weight ",
        weight.scalar_type(), " and ", tensor->scalar_type());
  }
}

std::tuple<Tensor, Tensor> forward(const Tensor& x, const Tensor& weight,
                                   const OptionalTensor& bias, const Tensor& A_main,
                                   const Tensor& B_main, const Tensor& A_sub, const Tensor& B_sub,
                                   double scaling, const OptionalTensor& columns) {
  check(x, weight, bias, {"main", A_main, B_main}, {"sub", A_sub, B_sub}, columns);
  // All dtypes are already that of x. Autocast would round the terms of the float32 sum.
  const c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);
  const Tensor A = at::cat({A_main, A_sub}), B = at::cat({B_main, B_sub}, 1);
  const Layer layer{weight, A, B, scaling, columns, x.scalar_type()};
  const Tensor rows = as_matrix(x);
  const OptionalTensor rounded_bias = bias ? OptionalTensor(layer.rounded(*bias)) : std::nullopt;
  const Tensor scaled_A = layer.scaled(A);
  Tensor kept = columns ? select_columns(rows, *columns) : at::mm(rows, scaled_A.t());
  if (!columns && (into_weight(rows.size(0), weight.size(1)) || is_small(weight, A.size(0)))) {
    return {with_width(at::linear(rows, layer.effective_weight(), rounded_bias), x), kept};
  }
  const Tensor hidden = columns ? at::mm(kept, scaled_A.t()) : kept;
  // The small terms are computed first, so that the large product is added to them before the sum
  // is rounded.
  Tensor out = at::linear(hidden, layer.rounded(B), rounded_bias);
  return {with_width(out.addmm_(rows, layer.plain_weight().t()), x), kept};
}

// dx (rows, in), from dy (rows, out) and t = s dy B (rows, r).
Tensor gradient_of_x(const Layer& layer, const Tensor& dy, const Tensor& t) {
  const Tensor A = layer.rounded(layer.A);
  if (layer.columns) {
    Tensor dx = at::mm(dy, layer.plain_weight());
    const Tensor pivots = select_columns(dx, *layer.columns).addmm_(t, A);
    return dx.index_copy_(1, *layer.columns, pivots);
  }
  if (into_weight(dy.size(0), layer.weight.size(0))) return at::mm(dy, layer.effective_weight());
  return at::mm(t, A).addmm_(dy, layer.plain_weight());
}

std::tuple<Tensor, Tensor, Tensor, Tensor> backward(const Tensor& grad, const OptionalTensor& x,
                                                    const OptionalTensor& kept,
                                                    const Tensor& weight, const Tensor& A,
                                                    const Tensor& B, double scaling,
                                                    const OptionalTensor& columns,
                                                    std::array<bool, 4> wanted) {
  const auto [wants_x, wants_bias, wants_A, wants_B] = wanted;
  const c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);
  const Layer layer{weight, A, B, scaling, columns, grad.scalar_type()};
  const Tensor dy = as_matrix(grad);
  Tensor dx, db, dA, dB;
  if (wants_x || wants_A) {
    const Tensor t = at::mm(dy, layer.scaled(B));
    if (wants_x) dx = with_width(gradient_of_x(layer, dy, t), grad);
    if (wants_A) dA = cast(at::mm(t.t(), columns ? *kept : as_matrix(*x)), A.scalar_type());
  }
  if (wants_bias) db = dy.sum(0, /*keepdim=*/false, weight.scalar_type());
  if (wants_B) {
    const Tensor hidden = columns ? at::mm(*kept, layer.scaled(A).t()) : *kept;
    // Computed as hidden' dy, because a product whose long side is contiguous is faster.
    dB = cast(at::mm(hidden.t(), dy).t(), B.scalar_type()).contiguous();
  }
  const auto or_none = [](const Tensor& gradient, const Tensor& like) {
    return gradient.defined() ? gradient : at::empty({0}, like.options());
  };
  return {or_none(dx, grad), or_none(db, weight), or_none(dA, A), or_none(dB, B)};
}

void register_kernels(torch::Library& library) {
  library.impl("dual_lora_linear", &forward);
  library.impl("dual_lora_linear_backward", &backward);
}

}  // namespace
}  // namespace recyclelora

TORCH_LIBRARY_IMPL(recyclelora, CPU, m) {
  recyclelora::register_kernels(m);
}

TORCH_LIBRARY_IMPL(recyclelora, CUDA, m) {
  recyclelora::register_kernels(m);
}
