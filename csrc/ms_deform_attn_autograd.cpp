// The first derivative of ms_deform_attn: a kernel of the dispatch key Autograd, which calls the
// kernels of the device.

#include <memory>
#include <tuple>

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/functions/basic_ops.h>
#include <torch/library.h>

namespace recyclelora {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

Tensor call_forward(const Tensor& value, c10::SymIntArrayRef sides, const Tensor& locations,
                    const Tensor& weights) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("recyclelora::ms_deform_attn", "")
                             .typed<decltype(call_forward)>();
  return op.call(value, sides, locations, weights);
}

std::tuple<Tensor, Tensor, Tensor> call_backward(const Tensor& grad, const Tensor& value,
                                                 c10::SymIntArrayRef sides, const Tensor& locations,
                                                 const Tensor& weights) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("recyclelora::ms_deform_attn_backward", "")
                             .typed<decltype(call_backward)>();
  return op.call(grad, value, sides, locations, weights);
}

// Return the gradients. Differentiating them raises an error; it would otherwise give zero.
variable_list differentiable_once(const variable_list& gradients) {
  variable_list recorded;
  for (const Tensor& gradient : gradients) {
    recorded.push_back(gradient.detach().set_requires_grad(true));
  }
  const auto error = std::make_shared<torch::autograd::DelayedError>(
      "ms_deform_attn: expected a gradient of first order, got a second derivative, which is not "
      "implemented; leave out create_graph",
      recorded.size());
  return (*error)(std::move(recorded));
}

struct Recorded : public torch::autograd::Function<Recorded> {
  static constexpr bool is_traceable = true;  // for compiled autograd

  static Tensor forward(AutogradContext* ctx, const Tensor& value, c10::SymIntArrayRef sides,
                        const Tensor& locations, const Tensor& weights) {
    const at::AutoDispatchBelowADInplaceOrView below;
    ctx->save_for_backward({value, locations, weights});
    ctx->saved_data["sides"] = sides;
    return call_forward(value, sides, locations, weights);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const variable_list saved = ctx->get_saved_variables();
    const auto sides = ctx->saved_data["sides"].toSymIntVector();
    variable_list gradients;
    {
      const at::AutoDispatchBelowADInplaceOrView below;
      auto [value, locations, weights] =
          call_backward(grads[0], saved[0], sides, saved[1], saved[2]);
      gradients = {value, locations, weights};
    }
    if (at::GradMode::is_enabled()) gradients = differentiable_once(gradients);
    return {gradients[0], Tensor(), gradients[1], gradients[2]};
  }
};

Tensor forward(const Tensor& value, c10::SymIntArrayRef sides, const Tensor& locations,
               const Tensor& weights) {
  return Recorded::apply(value, sides, locations, weights);
}

}  // namespace
}  // namespace recyclelora

TORCH_LIBRARY_IMPL(recyclelora, Autograd, m) {
  m.impl("ms_deform_attn", &recyclelora::forward);
}
