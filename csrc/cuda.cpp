// Python bindings of the CUDA kernels: device pointers, shapes and the stream in, launches queued, GIL released. No
// libtorch, so one build serves every torch. otcore/backends/cuda.py is the only caller.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <chrono>
#include <cstdint>
#include <limits>
#include <string>

#include "verbs.h"

namespace py = pybind11;
using namespace otcore::cuda;

namespace {

using Address = std::uintptr_t;

template <class U>
U* at(Address address) {
  return reinterpret_cast<U*>(address);
}

// otcore::cuda::Batch of either precision, and the stream.
struct Clouds {
  bool wide;
  Address x, y, a, b, shift, offset, flat, n_start, m_start;
  int n, m;
  long rows_x, rows_y;
  int items, d, first_kind, kinds, p;
  double floor;
  Address stream;

  template <class T>
  Batch<T> batch() const {
    return {at<T>(x), at<T>(y), at<T>(a), at<T>(b), at<double>(shift), at<double>(offset), at<double>(flat), at<long>(n_start),
            at<long>(m_start), n, m, rows_x, rows_y, items, d, first_kind, kinds, {p, floor}};
  }
  Stream queue() const { return reinterpret_cast<Stream>(stream); }
};

// Calls verb(batch, T()) in the precision of the clouds.
template <class Verb>
auto in_precision(const Clouds& q, Verb&& verb) {
  py::gil_scoped_release release;
  return q.wide ? verb(q.batch<double>(), double()) : verb(q.batch<float>(), float());
}

// otcore::cuda::Steps of either precision.
struct Solve {
  Clouds clouds;
  Settings settings;
  Address potentials, scratch;

  template <class Verb>
  auto with(Verb&& verb) const {
    return in_precision(clouds, [&](const auto& batch, auto zero) {
      return verb(Steps<decltype(zero)>(batch, settings, at<double>(potentials), at<void>(scratch)));
    });
  }
};

// Ctrl-C, looked for a few times a second.
bool interrupted() {
  using Clock = std::chrono::steady_clock;
  static thread_local Clock::time_point asked = Clock::now();
  if (Clock::now() - asked < std::chrono::milliseconds(100)) return false;
  asked = Clock::now();
  py::gil_scoped_acquire gil;
  return PyErr_CheckSignals() != 0;
}

}  // namespace

#ifdef OTCORE_EMULATED
#define OTCORE_MODULE _cuda_emulated
#else
#define OTCORE_MODULE _cuda
std::string device_report(), driver_refusal();  // kernels/cuda/device.cu
#endif

PYBIND11_MODULE(OTCORE_MODULE, m) {
  m.doc() = "CUDA kernels of otcore; called through otcore.backends.cuda.";
  py::class_<Clouds>(m, "Clouds", py::module_local())
      .def(py::init([](bool wide, Address x, Address y, Address a, Address b, Address shift, Address offset, Address flat,
                       Address n_start, Address m_start, int n, int m, long rows_x, long rows_y, int items, int d, int first_kind, int kinds,
                       int p, double floor, Address stream) {
        return Clouds{wide, x, y, a, b, shift, offset, flat, n_start, m_start, n, m, rows_x, rows_y, items, d, first_kind, kinds, p,
                      floor, stream};
      }));
  py::class_<Settings>(m, "Settings", py::module_local())
      .def(py::init([](double eps, double rho_x, double rho_y, double scaling, double diameter, double tol, int max_iter,
                       bool warm) {
        return Settings{eps, scaling, diameter, {rho_x, rho_y}, tol, max_iter, warm};
      }));
  py::class_<Solve>(m, "Steps", py::module_local())
      .def(py::init([](const Clouds& clouds, const Settings& settings, Address potentials, Address scratch) {
        return Solve{clouds, settings, potentials, scratch};
      }))
      .def("bytes", [](const Solve& solve) { return solve.with([](const auto& steps) { return steps.bytes(); }); })
      .def("places", [](const Solve& solve) {
        const StepPlaces found = solve.with([](const auto& steps) { return steps.places(); });
        return py::make_tuple(found.eps, found.log_sums, found.finished);
      })
      .def("begin", [](const Solve& solve, Address diameters, Address stream) {
        solve.with([&](const auto& steps) { steps.begin(at<double>(diameters), reinterpret_cast<Stream>(stream)); });
      })
      .def("decide", [](const Solve& solve, Address stream) {
        solve.with([&](const auto& steps) { steps.decide(reinterpret_cast<Stream>(stream)); });
      })
      .def("tell", [](const Solve& solve, Address told, Address stream) {
        solve.with([&](const auto& steps) { steps.tell(at<double>(told), reinterpret_cast<Stream>(stream)); });
      });
  m.attr("TOLD") = kTold;
  m.def("prepare", [](const Clouds& q, Address x, Address y, Address shift, Address offset, Address diameters,
                      Address flat) {
    in_precision(q, [&](const auto& batch, auto zero) {
      using T = decltype(zero);
      prepare(batch, Prepared<T>{at<T>(x), at<T>(y), at<double>(shift), at<double>(offset), at<double>(diameters), at<double>(flat)},
              q.queue());
    });
  });
  m.def("order_codes", [](const Clouds& q, Address boxes, Address codes) {
    in_precision(q, [&](const auto& batch, auto) { order_codes(batch, at<double>(boxes), at<long long>(codes), q.queue()); });
  });
  m.def("sweep_scratch", [](const Clouds& q) {
    return in_precision(q, [&](const auto& batch, auto) {
      const Slots slots = slots_of(batch);
      return (slots.rows + slots.columns) * batch.length();
    });
  });
  m.def("solve_scratch", [](const Clouds& q) { return in_precision(q, [&](const auto& batch, auto) { return solve_bytes(batch); }); });
  m.def("box_numbers", [](const Clouds& q, int pulls) {
    return in_precision(q, [&](const auto& batch, auto) { return box_numbers(batch, pulls); });
  });
  m.def("softmin", [](const Clouds& q, Address g, Address eps, Address boxes, Address out) {
    const Reach exact = {std::numeric_limits<double>::infinity(), std::numeric_limits<double>::infinity()};
    in_precision(q, [&](const auto& batch, auto zero) {
      softmin(batch, false, at<double>(g), at<double>(eps), exact, at<decltype(zero)>(boxes), at<double>(out), q.queue());
    });
  });
  m.def("sweep", [](const Clouds& q, Address potentials, Address eps, Address scratch, Address log_sums, Address pairs) {
    in_precision(q, [&](const auto& batch, auto zero) {
      sweep(batch, at<double>(potentials), at<double>(eps), nullptr, at<decltype(zero)>(scratch), at<double>(log_sums),
            at<unsigned long long>(pairs), q.queue());
    });
  });
  m.def("apply", [](const Clouds& q, Address f, Address g, Address eps, Address v, int width, Address boxes, Address out) {
    in_precision(q, [&](const auto& batch, auto zero) {
      apply(batch, at<double>(f), at<double>(g), at<double>(eps), at<double>(v), width, at<decltype(zero)>(boxes),
            at<decltype(zero)>(out), q.queue());
    });
  });
  m.def("gradients", [](const Clouds& q, Address potentials, Address eps, const std::array<Address, 4>& weights, bool normalise,
                        Address boxes, Address x, Address y) {
    in_precision(q, [&](const auto& batch, auto zero) {
      using T = decltype(zero);
      const auto weight = [&](int k) { return at<const double>(weights[k]); };
      const Gradients<T> out = {{weight(0), weight(1), weight(2), weight(3)}, normalise, at<T>(x), at<T>(y)};
      gradients(batch, at<double>(potentials), at<double>(eps), out, at<T>(boxes), q.queue());
    });
  });
  m.def("solve", [](const Clouds& q, const Settings& settings, Address diameters, Address potentials, Address told,
                    Address scratch) {
    in_precision(q, [&](const auto& batch, auto) {
      solve(batch, at<double>(diameters), settings, at<double>(potentials), at<double>(told), at<void>(scratch), interrupted,
            q.queue());
    });
    if (PyErr_Occurred()) throw py::error_already_set();
  });
#ifndef OTCORE_EMULATED
  m.def("device_report", &device_report);
  m.def("driver_refusal", &driver_refusal);
#endif
}
