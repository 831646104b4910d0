// Bindings of sliced transport; otcore/sliced_operators.py is the only caller.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <vector>

#include "sliced.h"

namespace py = pybind11;
using namespace otcore;

namespace {

using Address = std::uintptr_t;

// Items one after another: x (sum n, d), y (sum m, d), a (sum n), b (sum m), 0 where uniform; directions (d, count), or one
// such matrix an item where `own`. value (items), costs (items, count), and slopes as x and y, 0 where not wanted.
template <class T>
bool run(Address x, Address y, Address a, Address b, Address directions, const std::vector<long>& n, const std::vector<long>& m,
         bool own, const SlicedSettings& settings, Address value, Address costs, Address slope_x, Address slope_y) {
  py::gil_scoped_release release;
  const auto at = [](Address base, long offset) { return base ? reinterpret_cast<T*>(base) + offset : nullptr; };
  const long items = static_cast<long>(n.size()), d = settings.d, count = settings.directions;
  std::vector<SlicedItem<T>> all(items);
  long row_x = 0, row_y = 0;
  for (long i = 0; i < items; i++) {
    all[i] = {at(x, row_x * d), at(y, row_y * d), at(a, row_x), at(b, row_y), at(directions, own ? i * d * count : 0), n[i], m[i],
              at(value, i), at(costs, i * count), at(slope_x, row_x * d), at(slope_y, row_y * d)};
    row_x += n[i], row_y += m[i];
  }
  return sliced(all.data(), items, settings);
}

template <class T>
void scale(Address from, Address factors, const std::vector<long>& sizes, int threads, Address to) {
  py::gil_scoped_release release;
  scale_items(reinterpret_cast<const T*>(from), reinterpret_cast<const T*>(factors), sizes.data(),
              static_cast<long>(sizes.size()), threads, reinterpret_cast<T*>(to));
}

}  // namespace

void bind_sliced(py::module_& m) {
  m.def("sliced", [](bool wide, Address x, Address y, Address a, Address b, Address directions, const std::vector<long>& n,
                     const std::vector<long>& m, int d, long count, bool own, double p, bool root, int threads, Address value,
                     Address costs, Address slope_x, Address slope_y) {
    const SlicedSettings settings{d, count, p, root, threads};
    return (wide ? run<double> : run<float>)(x, y, a, b, directions, n, m, own, settings, value, costs, slope_x, slope_y);
  });
  m.def("scale_items", [](bool wide, Address from, Address factors, const std::vector<long>& sizes, int threads, Address to) {
    (wide ? scale<double> : scale<float>)(from, factors, sizes, threads, to);
  });
}
