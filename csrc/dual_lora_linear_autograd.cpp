// The derivative of dual_lora_linear for every device: kernels of the dispatch key Autograd, which
// call the kernels of the device.

#include <array>
#include <optional>
#include <tuple>

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

namespace recyclelora {
namespace {

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using Gradients = std::tuple<Tensor, Tensor, Tensor, Tensor>;  // of x, bias, A and B
using Wanted = std::array<bool, 4>;                            // which of these to compute

std::tuple<Tensor, Tensor> call_forward(const Tensor& x, const Tensor& weight,
                                        const OptionalTensor& bias, const Tensor& A_main,
                                        const Tensor& B_main, const Tensor& A_sub,
                                        const Tensor& B_sub, double scaling,
                                        const OptionalTensor& columns) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("recyclelora::dual_lora_linear", "")
                             .typed<decltype(call_forward)>();
  return op.call(x, weight, bias, A_main, B_main, A_sub, B_sub, scaling, columns);
}

Gradients call_backward(const Tensor& grad, const OptionalTensor& x, const OptionalTensor& kept,
                        const Tensor& weight, const Tensor& A, const Tensor& B, double scaling,
                        const OptionalTensor& columns, Wanted wanted) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("recyclelora::dual_lora_linear_backward", "")
                             .typed<decltype(call_backward)>();
  return op.call(grad, x, kept, weight, A, B, scaling, columns, wanted);
}

// (rows, width). Sizes may be symbolic, as in torch.compile.
Tensor as_matrix(const Tensor& x) {
  return x.reshape_symint({-1, x.sym_size(-1)});
}

// The result of call_backward, computed by operators that autograd can differentiate again.
Gradients differentiable_backward(const Tensor& grad, const OptionalTensor& x,
                                  const OptionalTensor& kept, const Tensor& weight, const Tensor& A,
                                  const Tensor& B, double scaling, const OptionalTensor& columns,
                                  Wanted wanted) {
  const auto [wants_x, wants_bias, wants_A, wants_B] = wanted;
  const at::ScalarType dtype = grad.scalar_type();
  const Tensor dy = as_matrix(grad);
  Tensor dx, db, dA, dB, dhidden;
  if (wants_x || wants_A) dhidden = dy.matmul(B.mul(scaling).to(dtype));
  if (wants_x) {
    const Tensor update = dhidden.matmul(A.to(dtype));
    dx = dy.matmul(weight.to(dtype));
    dx = columns ? dx.index_add(1, *columns, update) : dx.add(update);
    auto shape = grad.sym_sizes().vec();
    shape.back() = weight.sym_size(1);
    dx = dx.reshape_symint(shape);
  }
  if (wants_bias) db = dy.sum(0, /*keepdim=*/false, weight.scalar_type());
  if (wants_A) dA = dhidden.t().matmul(columns ? *kept : as_matrix(*x)).to(A.scalar_type());
  if (wants_B) {
    const Tensor hidden = columns ? kept->matmul(A.mul(scaling).to(dtype).t()) : *kept;
    dB = dy.t().matmul(hidden).to(B.scalar_type());
  }
  return {dx, db, dA, dB};
}

OptionalTensor if_defined(const Tensor& tensor) {
  return tensor.defined() ? OptionalTensor(tensor) : std::nullopt;
}

// The arguments of the operator in another order: bias and columns, which may be absent, come last,
// so that each argument always has the same number (below).
struct Recorded : public torch::autograd::Function<Recorded> {
  static constexpr bool is_traceable = true;  // for compiled autograd

  enum Argument { kX, kWeight, kAMain, kBMain, kASub, kBSub, kBias, kArguments = 9 };

  static variable_list forward(AutogradContext* ctx, const Tensor& x, const Tensor& weight,
                               const Tensor& A_main, const Tensor& B_main, const Tensor& A_sub,
                               const Tensor& B_sub, const OptionalTensor& bias,
                               const OptionalTensor& columns, double scaling) {
    const at::AutoDispatchBelowADInplaceOrView below;
    auto [out, kept] =
        call_forward(x, weight, bias, A_main, B_main, A_sub, B_sub, scaling, columns);
    const bool wants_A = A_main.requires_grad() || A_sub.requires_grad();
    const bool wants_B = B_main.requires_grad() || B_sub.requires_grad();
    const bool needs_x = weight.requires_grad() || (wants_A && !columns);
    const bool needs_kept = wants_B || (wants_A && columns);
    // The factors are saved separately, not joined, because parameters take no additional memory.
    ctx->save_for_backward({needs_x ? x : Tensor(), needs_kept ? kept : Tensor(), weight,
                            columns.value_or(Tensor()), A_main, B_main, A_sub, B_sub});
    ctx->saved_data["scaling"] = scaling;
    ctx->saved_data["shape"] = out.sym_sizes();
    ctx->saved_data["bias"] = bias.has_value();
    ctx->set_materialize_grads(false);
    return {out, kept};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    variable_list results(kArguments);
    Tensor grad = grads[0];
    const Tensor& grad_kept = grads[1];  // only defined in second derivatives
    if (!grad.defined() && !grad_kept.defined()) return results;
    const variable_list saved = ctx->get_saved_variables();
    const Tensor &x = saved[0], &weight = saved[2], &A_main = saved[4];
    const OptionalTensor kept = if_defined(saved[1]), columns = if_defined(saved[3]);
    const Tensor A = at::cat({A_main, saved[6]}), B = at::cat({saved[5], saved[7]}, 1);
    const double scaling = ctx->saved_data["scaling"].toDouble();
    if (!grad.defined()) {
      const auto shape = ctx->saved_data["shape"].toSymIntVector();
      grad = at::zeros_symint(shape, grad_kept.options());
    }
    const auto wants = [&](Argument argument) { return ctx->needs_input_grad(argument); };
    // If the bias is absent, its argument is no tensor and needs no gradient.
    const Wanted wanted = {wants(kX), ctx->saved_data["bias"].toBool() && wants(kBias),
                           wants(kAMain) || wants(kASub), wants(kBMain) || wants(kBSub)};
    const auto function = at::GradMode::is_enabled() ? &differentiable_backward : &call_backward;
    auto [dx, db, dA, dB] =
        function(grad, if_defined(x), kept, weight, A, B, scaling, columns, wanted);
    if (grad_kept.defined() && wants(kX)) {
      const Tensor rows = as_matrix(dx);
      dx = (columns ? rows.index_add(1, *columns, grad_kept)
                    : rows.add(grad_kept.mul(scaling).matmul(A.to(grad.scalar_type()))))
               .view_as(dx);
    }
    if (grad_kept.defined() && wanted[2] && !columns) {
      dA = dA.add(grad_kept.mul(scaling).t().matmul(as_matrix(x)).to(A.scalar_type()));
    }
    if (wants(kX)) results[kX] = dx;
    if (wants(kWeight)) {
      results[kWeight] = as_matrix(grad).t().matmul(as_matrix(x)).to(weight.scalar_type());
    }
    const std::array<c10::SymInt, 2> ranks = {A_main.sym_size(0), saved[6].sym_size(0)};
    const auto split = [&](const Tensor& joined, int64_t dim, Argument main, Argument sub) {
      const std::vector<Tensor> parts = joined.split_with_sizes_symint(ranks, dim);
      if (wants(main)) results[main] = parts[0];
      if (wants(sub)) results[sub] = parts[1];
    };
    if (wanted[2]) split(dA, 0, kAMain, kASub);
    if (wanted[3]) split(dB, 1, kBMain, kBSub);
    if (wanted[1]) results[kBias] = db;
    return results;
  }
};

std::tuple<Tensor, Tensor> forward(const Tensor& x, const Tensor& weight,
                                   const OptionalTensor& bias, const Tensor& A_main,
                                   const Tensor& B_main, const Tensor& A_sub, const Tensor& B_sub,
                                   double scaling, const OptionalTensor& columns) {
  variable_list results =
      Recorded::apply(x, weight, A_main, B_main, A_sub, B_sub, bias, columns, scaling);
  return {std::move(results[0]), std::move(results[1])};
}

}  // namespace
}  // namespace recyclelora

TORCH_LIBRARY_IMPL(recyclelora, Autograd, m) {
  m.impl("dual_lora_linear", &recyclelora::forward);
}
