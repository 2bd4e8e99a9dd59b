// recyclelora::rrqr, the C++ function of the operator torch.ops.recyclelora.rrqr.

#include <recyclelora/rrqr.h>

#include <tuple>

#include <ATen/core/dispatch/Dispatcher.h>
#include <c10/core/GradMode.h>

namespace recyclelora {

RRQR rrqr(const at::Tensor& weight, int64_t n_major, int64_t n_minor) {
  TORCH_CHECK_VALUE(weight.defined(), "rrqr: weight must be a tensor, got an undefined one");
  TORCH_CHECK_NOT_IMPLEMENTED(
      !(weight.requires_grad() && c10::GradMode::is_enabled()),
      "rrqr has no derivative (its pivots jump); call it on weight.detach() to use its result as a "
      "constant");
  using Results = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor>;
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("recyclelora::rrqr", "")
                             .typed<Results(const at::Tensor&, c10::SymInt, c10::SymInt)>();
  auto [perm, q_major, q_minor, r_diag] = op.call(weight, n_major, n_minor);
  return {perm, q_major, q_minor, r_diag};
}

}  // namespace recyclelora
