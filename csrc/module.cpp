// Python bindings of the CPU kernels: pointers and shapes in, kernels called, GIL released. No libtorch, so one
// build serves every torch. otcore/backends/cpu.py is the only caller, and otcore/kernel_loss.py of radial.cpp, and otcore/sliced_operators.py of sliced.cpp.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <limits>
#include <utility>
#include <vector>

#include "dispatch.h"
#include "gradients.h"
#include "solve.h"

namespace py = pybind11;
using namespace otcore;

namespace {

using Address = std::uintptr_t;
using Splits = std::vector<long>;

constexpr int kInfo = 5;  // numbers told of each item: value, status, sweeps, marginal error, pairs

template <class T>
T* at(Address address) {
  return reinterpret_cast<T*>(address);
}

// A batch of pairs of clouds: points and weights concatenated, item i in rows [splits[i], splits[i + 1]).
struct Batch {
  bool wide;  // double, else float
  Address x, y, a, b;  // a, b 0: uniform weights of mass 1, unrounded
  Splits n, m;
  int d, p;
  double floor;
  int threads;

  long count() const { return static_cast<long>(n.size()) - 1; }
  Cost cost() const { return {p, floor}; }
};

double* part(Address base, long row, long width = 1) { return base ? at<double>(base) + row * width : nullptr; }

// Ctrl-C, looked for a few times a second.
bool interrupted() {
  using Clock = std::chrono::steady_clock;
  static thread_local Clock::time_point asked = Clock::now();
  if (Clock::now() - asked < std::chrono::milliseconds(100)) return false;
  asked = Clock::now();
  py::gil_scoped_acquire gil;
  return PyErr_CheckSignals() != 0;
}

// A line on sys.stderr, once a second at most.
void report(const Progress& at) {
  using Clock = std::chrono::steady_clock;
  static thread_local Clock::time_point told = Clock::now();
  if (Clock::now() - told < std::chrono::seconds(1)) return;
  told = Clock::now();
  char line[160];
  std::snprintf(line, sizeof line, "otcore: %s  eps %.3g  %ld and %ld points  sweep %ld  marginal error %.2g\n",
                at.same ? "self-term" : "x to y", at.eps, at.n, at.m, at.sweep, at.error);
  py::gil_scoped_acquire gil;
  py::module_::import("sys").attr("stderr").attr("write")(line);
}

template <class T>
std::vector<Item<T>> items(const Batch& batch) {
  std::vector<Item<T>> out(batch.count());
  for (long i = 0; i < batch.count(); i++) {
    Item<T>& item = out[i];
    item = {};
    item.x = at<T>(batch.x) + batch.n[i] * batch.d, item.a = batch.a ? at<T>(batch.a) + batch.n[i] : nullptr;
    item.y = at<T>(batch.y) + batch.m[i] * batch.d, item.b = batch.b ? at<T>(batch.b) + batch.m[i] : nullptr;
    item.n = batch.n[i + 1] - batch.n[i], item.m = batch.m[i + 1] - batch.m[i];
  }
  return out;
}

template <class T, class Solve>
void solve_items(const Batch& batch, const std::vector<Address>& before, const std::vector<Address>& after,
                 const Settings& settings, double* info, Solve&& solve) {
  std::vector<Item<T>> all = items<T>(batch);
  for (long i = 0; i < batch.count(); i++) {
    Item<T>& item = all[i];
    item.f = part(before[0], batch.n[i]), item.g = part(before[1], batch.m[i]);
    item.f_xx = part(before[2], batch.n[i]), item.g_yy = part(before[3], batch.m[i]);
    if (after.empty()) continue;
    item.f_after = part(after[0], batch.n[i]), item.g_after = part(after[1], batch.m[i]);
    item.f_xx_after = part(after[2], batch.n[i]), item.g_yy_after = part(after[3], batch.m[i]);
  }
  bool stopped = false;
  {
    py::gil_scoped_release release;
    solve(all.data(), batch.count(), batch.d, settings);
    for (long i = 0; i < batch.count(); i++) {
      stopped = stopped || all[i].status == kInterrupted;
      const double told[kInfo] = {all[i].value, static_cast<double>(all[i].status), static_cast<double>(all[i].n_iter),
                                  all[i].marginal_error, all[i].pairs};
      std::copy(told, told + kInfo, info + kInfo * i);
    }
  }
  if (stopped) throw py::error_already_set();
}

void anneal_batch(const Batch& batch, double eps, double rho_x, double rho_y, double scaling, double diameter, bool debias,
                  double tol, long max_iter, bool warm, bool verbose, const std::vector<Address>& potentials, Address info) {
  Settings s{};
  s.cost = batch.cost(), s.eps = eps, s.rho_x = rho_x, s.rho_y = rho_y, s.scaling = scaling, s.diameter = diameter;
  s.debias = debias, s.tol = tol, s.max_iter = max_iter, s.warm = warm;
  s.threads = batch.threads, s.interrupted = interrupted, s.report = verbose ? report : nullptr;
  auto solve = [](auto* all, long count, int d, const Settings& s) { anneal(all, count, d, s); };
  if (batch.wide) solve_items<double>(batch, potentials, {}, s, at<double>(info), solve);
  else solve_items<float>(batch, potentials, {}, s, at<double>(info), solve);
}

void follow_batch(const Batch& batch, const std::vector<double>& schedule, double rho_x, double rho_y, bool debias,
                  bool cluster, bool verbose, const std::vector<Address>& before, const std::vector<Address>& after,
                  Address info) {
  Settings s{};
  s.cost = batch.cost(), s.eps = schedule.back(), s.rho_x = rho_x, s.rho_y = rho_y, s.debias = debias;
  s.schedule = schedule, s.cluster = cluster;
  s.threads = batch.threads, s.interrupted = interrupted, s.report = verbose ? report : nullptr;
  auto solve = [](auto* all, long count, int d, const Settings& s) { follow(all, count, d, s); };
  if (batch.wide) solve_items<double>(batch, before, after, s, at<double>(info), solve);
  else solve_items<float>(batch, before, after, s, at<double>(info), solve);
}

// The diagonal of the bounding box of all points of all items together.
template <class T>
double diameter_of(const Batch& batch) {
  double square = 0;
  for (int k = 0; k < batch.d; k++) {
    T lo = at<T>(batch.x)[k], hi = lo;
    bool finite = true;
    const std::pair<Address, long> clouds[] = {{batch.x, batch.n.back()}, {batch.y, batch.m.back()}};
    for (const auto& [points, count] : clouds)
      for (long i = 0; i < count; i++) {
        const T v = at<T>(points)[i * batch.d + k];
        lo = v < lo ? v : lo, hi = v > hi ? v : hi;
        finite = finite && v - v == 0;
      }
    if (!finite) return std::numeric_limits<double>::quiet_NaN();
    square += (static_cast<double>(hi) - lo) * (static_cast<double>(hi) - lo);
  }
  return std::sqrt(square);
}

// Calls verb(term, item index) with each item's term at (f, g), of type P, and eps.
template <class T, class P, class Verb>
void each_term(const Batch& batch, Address f, Address g, double eps, bool same, Verb&& verb) {
  py::gil_scoped_release release;
  std::vector<Item<T>> all = items<T>(batch);
  for (long i = 0; i < batch.count(); i++) {
    const Item<T>& item = all[i];
    const Clouds clouds = clouds_for(item, batch.d, batch.cost(), eps, batch.threads);
    const Cloud &x = *clouds.x, &y = *clouds.y;
    Term<T> term(x, same ? x : y, batch.cost(), same, true);
    term.temperature(eps);
    if (f) term.f = x.place(at<P>(f) + batch.n[i]);
    if (g && !same) term.g = y.place(at<P>(g) + batch.m[i]);
    verb(term, i);
  }
}

// Rows of width `width` from place order to the caller's.
void unplace_rows(const Cloud& cloud, const std::vector<double>& from, long width, double* to) {
  for (long i = 0; i < cloud.n; i++)
    for (long k = 0; k < width; k++) to[cloud.order[i] * width + k] = from[i * width + k];
}

template <class T, class P>
void sweep_items(const Batch& batch, Address f, Address g, double eps, bool same, Address log_r, Address log_c) {
  each_term<T, P>(batch, f, g, eps, same, [&](Term<T>& term, long i) {
    Term<T>* one = &term;
    Term<T>::sums(&one, 1, batch.threads);
    const Cloud &x = term.x(), &y = term.y();
    for (long q = 0; q < x.n; q++) at<T>(log_r)[batch.n[i] + x.order[q]] = static_cast<T>(term.log_r[q]);
    for (long q = 0; q < y.n && !same; q++) at<T>(log_c)[batch.m[i] + y.order[q]] = static_cast<T>(term.log_c[q]);
  });
}

template <class T>
void softmin_items(const Batch& batch, Address g, double eps, Address out) {
  each_term<T, double>(batch, 0, g, eps, false, [&](Term<T>& term, long i) {
    const std::vector<double> values = term.softmin(batch.threads);
    term.x().unplace(values.data(), part(out, batch.n[i]));
  });
}

template <class T>
void gradient_items(const Batch& batch, double eps, const std::vector<Address>& potentials, const std::vector<Address>& weights,
                    bool normalise, Address out_x, Address out_y) {
  py::gil_scoped_release release;
  std::vector<Item<T>> all = items<T>(batch);
  std::vector<Slopes<T>> slopes(batch.count());
  for (long i = 0; i < batch.count(); i++) {
    const long n = batch.n[i], m = batch.m[i];
    all[i].f = part(potentials[0], n), all[i].g = part(potentials[1], m);
    all[i].f_xx = part(potentials[2], n), all[i].g_yy = part(potentials[3], m);
    slopes[i] = {part(weights[0], n), part(weights[1], m), part(weights[2], n), part(weights[3], m),
                 out_x ? at<T>(out_x) + n * batch.d : nullptr, out_y ? at<T>(out_y) + m * batch.d : nullptr};
  }
  gradients(all.data(), slopes.data(), batch.count(), batch.d, batch.cost(), eps, normalise, batch.threads);
}

template <class T>
void apply_items(const Batch& batch, Address f, Address g, double eps, bool same, Address v, int width, Address out) {
  each_term<T, double>(batch, f, g, eps, same, [&](Term<T>& term, long i) {
    const Cloud& y = term.y();
    std::vector<double> placed(y.n * width), values;
    const double* given = part(v, batch.m[i], width);
    for (long j = 0; j < y.n; j++)
      for (int k = 0; k < width; k++) placed[j * width + k] = given[y.order[j] * width + k];
    term.apply(placed.data(), width, batch.threads, values);
    for (long q = 0; q < static_cast<long>(values.size()); q++) values[q] *= term.x().weights[q / width];
    unplace_rows(term.x(), values, width, part(out, batch.n[i], width));
  });
}

}  // namespace

void bind_radial(py::module_& m);  // radial.cpp
void bind_sliced(py::module_& m);  // sliced.cpp

PYBIND11_MODULE(_core, m) {
  m.doc() = "CPU kernels of otcore; called through otcore.backends.cpu.";
  py::class_<Batch>(m, "Batch")
      .def(py::init([](bool wide, Address x, Address y, Address a, Address b, Splits n, Splits m, int d, int p, double floor,
                       int threads) {
        return Batch{wide, x, y, a, b, std::move(n), std::move(m), d, p, floor, threads};
      }));
  m.attr("INFO") = kInfo;
  m.def("anneal", &anneal_batch);
  m.def("follow", &follow_batch);
  m.def("sweep", [](const Batch& batch, bool wide, Address f, Address g, double eps, bool same, Address log_r, Address log_c) {
    (batch.wide ? sweep_items<double, double> : wide ? sweep_items<float, double> : sweep_items<float, float>)(
        batch, f, g, eps, same, log_r, log_c);
  });
  m.def("softmin", [](const Batch& batch, Address g, double eps, Address out) {
    (batch.wide ? softmin_items<double> : softmin_items<float>)(batch, g, eps, out);
  });
  m.def("gradients", [](const Batch& batch, double eps, const std::vector<Address>& potentials,
                        const std::vector<Address>& weights, bool normalise, Address out_x, Address out_y) {
    (batch.wide ? gradient_items<double> : gradient_items<float>)(batch, eps, potentials, weights, normalise, out_x, out_y);
  });
  m.def("apply", [](const Batch& batch, Address f, Address g, double eps, bool same, Address v, int width, Address out) {
    (batch.wide ? apply_items<double> : apply_items<float>)(batch, f, g, eps, same, v, width, out);
  });
  m.def("diameter", [](const Batch& batch) { return (batch.wide ? diameter_of<double> : diameter_of<float>)(batch); });
  m.def("isa", [] { return isa().name; });
  m.def("plain", &plain);
  bind_radial(m);
  bind_sliced(m);
}
