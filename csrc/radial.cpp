// Bindings of the kernel norms; otcore/kernel_loss.py is the only caller.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <vector>

#include "kernel_norm.h"

namespace py = pybind11;
using namespace otcore;

namespace {

using Address = std::uintptr_t;

// x (count, n, d), a (count, n), y (count, m, d), b (count, m); sums (count, n + m) and force (count, n + m, d) in
// double, force 0 where not wanted.
template <class T>
void norms(Address x, Address a, Address y, Address b, long count, long n, long m, int d, Kernel kernel,
           const std::vector<double>& blurs, bool unbiased, int threads, Address sums, Address force) {
  py::gil_scoped_release release;
  std::vector<NormItem<T>> items(count);
  const auto at = [](Address base, long offset) { return reinterpret_cast<const T*>(base) + offset; };
  for (long i = 0; i < count; i++)
    items[i] = {at(x, i * n * d),
                at(a, i * n),
                at(y, i * m * d),
                at(b, i * m),
                n,
                m,
                reinterpret_cast<double*>(sums) + i * (n + m),
                force ? reinterpret_cast<double*>(force) + i * (n + m) * d : nullptr};
  const NormSettings settings{kernel, blurs.data(), static_cast<int>(blurs.size()), unbiased, threads};
  kernel_norms(items.data(), count, d, settings);
}

}  // namespace

void bind_radial(py::module_& m) {
  py::enum_<Kernel>(m, "Kernel")
      .value("gaussian", Kernel::gaussian)
      .value("laplacian", Kernel::laplacian)
      .value("energy", Kernel::energy)
      .value("inverse_multiquadric", Kernel::inverse_multiquadric);
  m.def("kernel_norms", [](bool wide, Address x, Address a, Address y, Address b, long count, long n, long m, int d,
                           Kernel kernel, const std::vector<double>& blurs, bool unbiased, int threads, Address sums,
                           Address force) {
    (wide ? norms<double> : norms<float>)(x, a, y, b, count, n, m, d, kernel, blurs, unbiased, threads,
                                          sums, force);
  });
}
