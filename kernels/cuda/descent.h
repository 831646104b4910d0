// The steps of a solve between two sweeps: sums to marginal error, the decisions, and the next potentials by Anderson
// acceleration. Everything is decided on the device; otcore/solver.py is the reference of the decisions and
// otcore/anderson.py of the acceleration.
//
// A term is cut into slices, a block each. Between kernels (or barriers, where one block does it all) go:
//   total     each slice's part of the error and the value, from the log sums
//   residual  decides; the image of the potentials and what is new in the history; each slice's part of the products
//   combine   solves for the coefficients; the next potentials
// Every slice of a term decides alike, from the same numbers; slice 0 writes down what was decided. The steps are
// calls, not inlined, so that the kernels that differ in the dimension only share them.
#pragma once
#include <cmath>

#include "reduce.h"
#include "sweep.h"
#include "verbs.h"

namespace otcore::cuda {

constexpr int kWindow = 10;
constexpr double kRidge = 1e-10;
constexpr double kLooseTolerance = 0.01;
constexpr int kLooseSweeps = 60, kPatience = 60, kRest = 10;
constexpr int kConverged = 0, kMaxIter = 1, kNotFinite = 2;  // otcore.solution.Status
constexpr double kLargestExponent = 300;
constexpr int kSums = 8;  // of a slice: error, psi_x, psi_y, sum a r, and two logarithms of sums of exponentials
constexpr double kInfinite = std::numeric_limits<double>::infinity();

struct Control {
  double eps, eps_old, eps_next, diameter, mass_x, mass_y;
  double old_error, best, mark, error, value, translation;
  int level, last, count, n_iter, since, rest, span;
  int held, slot, fresh;  // differences in the history, the newest one, and whether none can be made yet
  int status, finished;
  int better, lost, advance, mix;  // what to do now
};

template <class T>
struct State {
  double *z, *best, *old, *image, *residual, *log_sums;  // [length]
  T *images, *residuals;                                 // [kWindow][length] differences
  double *sums, *products;                               // [terms][slices][kSums], [terms][slices][2 kWindow]
  double *gram, *eps;                                    // [terms][kWindow^2], [terms]
  Control *now, *next;                                   // [terms]
  int *finished, *remaining;                             // [terms], [1]
  unsigned long long* pairs;                             // [terms]
  T* sweeps;                                             // the scratch memory of a sweep
  int slices;
  long length;
};

struct StepMemory {
  double scratch[33 * 2 * kWindow];
  double gathered[2 * kWindow], coefficients[kWindow];
  double gram[kWindow * kWindow];
  Control control;
  int solved;
};

// rho of the two sides of a term.
__device__ inline Reach reach_of(Reach reach, int kind) {
  return kind == 0 ? reach : kind == 1 ? Reach{reach.x, reach.x} : Reach{reach.y, reach.y};
}

// |e^{log r} - e^target| without overflow or inf - inf.
__device__ inline double distance(double log_r, double target) {
  const double top = log_r > target ? log_r : target;
  return exp(top < kLargestExponent ? top : kLargestExponent) * -expm1(-fabs(log_r - target));
}

__device__ inline double damping(double eps, double rho) { return 1 / (1 + eps / rho); }

__device__ inline double averaged(double f, double log_r, double eps, double rho) {
  const double lam = damping(eps, rho);
  return 0.5 * ((1 + lam) * f - lam * eps * log_r);
}

// The part of slice `slice`: elements [first, last), whole warps but for the end.
struct Slice {
  int first, last;
};
__device__ inline Slice slice_of(int size, int slice, int slices) {
  const int warps = (size + kWarp - 1) / kWarp, share = (warps + slices - 1) / slices * kWarp;
  const int first = slice * share;
  return {first < size ? first : size, first + share < size ? first + share : size};
}

// The temperature of a level: of k = 0, 1, ... the lengths diameter scaling^k above the blur, then eps.
__device__ inline double temperature(const Control& c, const Settings& settings, int p, int level) {
  return level >= c.last ? settings.eps : pow(c.diameter * pow(settings.scaling, static_cast<double>(level)), static_cast<double>(p));
}

template <class T>
__device__ void begin(const Batch<T>& batch, int t, double diameter, const Settings& settings, const State<T>& state,
                      StepMemory& memory) {
  const Term<T> q = term_at(batch, t);
  const int p = batch.cost.p;
  double masses[2] = {0, 0};
  for (int i = threadIdx.x; i < q.n; i += blockDim.x) masses[0] += q.template weight_x<double>(i);
  for (int j = threadIdx.x; j < q.m; j += blockDim.x) masses[1] += q.template weight_y<double>(j);
  block_sums(masses, memory.scratch);
  if (threadIdx.x == 0) {
    Control c{};
    c.mass_x = q.a ? masses[0] : 1, c.mass_y = q.b ? masses[1] : 1;
    c.diameter = settings.diameter >= 0 ? settings.diameter : diameter;
    if (!q.same && !settings.warm && c.diameter < kInfinite) {
      const double blur = pow(settings.eps, 1.0 / p);
      for (double length = c.diameter; length > blur; length *= settings.scaling) c.last++;
    }
    c.eps = c.eps_old = temperature(c, settings, p, 0);
    c.old_error = c.best = c.mark = kInfinite;
    c.span = kRest, c.fresh = 1, c.slot = -1, c.status = kMaxIter;
    state.now[t] = c;
    state.eps[t] = c.eps, state.finished[t] = 0, state.pairs[t] = 0;
  }
}

template <class T>
__device__ __noinline__ void total(const Batch<T>& batch, int t, const Settings& settings, const State<T>& state, int slice,
                                   int slices, StepMemory& memory) {
  const Term<T> q = term_at(batch, t);
  const double eps = state.eps[t];
  const Reach rho = reach_of(settings.reach, kind_of(batch, t));
  const bool free = rho.x < kInfinite || rho.y < kInfinite;
  const Slice part = slice_of(q.size(), slice, slices);
  double sums[4] = {0, 0, 0, 0};
  LogSum log_x = {-kInfinite, 0}, log_y = {-kInfinite, 0};
  for (int e = part.first + threadIdx.x; e < part.last; e += blockDim.x) {
    const long place = q.place(e);
    const bool row = e < q.n;
    const double side = row ? rho.x : rho.y, f = state.z[place], weight = q.weight(e);
    const double log_r = state.log_sums[place];
    sums[0] += weight * distance(log_r, -f / side);
    const double psi = weight * (side < kInfinite ? -side * expm1(-f / side) : f);
    if (row) sums[1] += psi, sums[3] += weight * expm1(log_r);
    else sums[2] += psi;
    if (free && !q.same && weight > 0) {
      const LogSum one = {log(weight) - averaged(f, log_r, eps, side) / side, 1};
      if (row) log_x = joined(log_x, one);
      else log_y = joined(log_y, one);
    }
  }
  block_sums(sums, memory.scratch);
  if (free && !q.same) log_x = block_log_sum(log_x, memory.scratch), log_y = block_log_sum(log_y, memory.scratch);
  if (threadIdx.x == 0) {
    double* out = state.sums + (static_cast<long>(t) * slices + slice) * kSums;
    for (int k = 0; k < 4; k++) out[k] = sums[k];
    out[4] = log_x.top, out[5] = log_x.sum, out[6] = log_y.top, out[7] = log_y.sum;
  }
}

// What the sums of a sweep mean for a term: one thread's work.
__device__ inline void judge(Control& c, const double* sums, int slices, bool same, const Settings& settings, Reach rho) {
  double all[4] = {0, 0, 0, 0};
  LogSum log_x = {-kInfinite, 0}, log_y = {-kInfinite, 0};
  for (int s = 0; s < slices; s++) {
    const double* own = sums + s * kSums;
    for (int k = 0; k < 4; k++) all[k] += own[k];
    log_x = joined(log_x, {own[4], own[5]}), log_y = joined(log_y, {own[6], own[7]});
  }
  const double mass_y = same ? c.mass_x : c.mass_y;
  c.error = (same ? 2 * all[0] : all[0]) * 2 / (c.mass_x + mass_y);
  c.translation = 0;
  if (!same && (rho.x < kInfinite || rho.y < kInfinite)) {
    const double gap = log_x.top + log(log_x.sum) - log_y.top - log(log_y.sum);
    c.translation = gap / (1 / rho.x + 1 / rho.y);
  }
  const bool final = c.level == c.last;
  const double loose = settings.tol > kLooseTolerance ? settings.tol : kLooseTolerance;
  const int limit = final ? settings.max_iter : kLooseSweeps;
  c.count++, c.n_iter++;
  const bool good = c.error <= (final ? settings.tol : loose), over = c.count >= limit, spent = c.count > limit;
  c.better = c.error < c.best;
  if (c.better) c.best = c.error;
  if (c.error < 0.9 * c.mark) c.mark = c.error, c.since = 0;
  else c.since++;
  const bool finite = std::isfinite(c.error);
  c.lost = !good && !spent && (!finite || (c.error > c.best && over) || (c.rest == 0 && c.since >= kPatience));
  // Past max_iter the sweep was at the best potentials, which ends the solve.
  if (spent && final) c.n_iter--;
  const bool stop = good || spent || (over && !c.lost);
  if (stop && final) {
    c.finished = 1;
    c.status = !finite ? kNotFinite : good ? kConverged : kMaxIter;
    c.value = all[1] + (same ? all[1] : all[2]) - c.eps * (all[3] + c.mass_x * (1 - mass_y));
    // The constant that exact marginals leave free: <a, f> = <b, g>.
    const bool balanced = rho.x == kInfinite && rho.y == kInfinite;
    c.translation = balanced && !same ? (all[2] - all[1]) / (c.mass_x + mass_y) : 0;
    return;
  }
  c.advance = (stop || (c.lost && over)) && !final;
  if (c.lost || c.rest > 0 || c.error > 2 * c.old_error) c.held = 0, c.slot = -1, c.fresh = 1;
  c.mix = !c.fresh;
  if (c.mix) c.slot = (c.slot + 1) % kWindow, c.held = c.held < kWindow ? c.held + 1 : kWindow;
  c.fresh = 0;
}

// What follows from the decisions once the potentials have been moved.
__device__ inline void settle(Control& c) {
  if (c.lost) c.held = 0, c.slot = -1, c.fresh = 1;
  const bool rested = c.rest == 1;
  if (c.lost || rested) c.since = 0;
  c.rest = c.lost ? c.span : c.rest > 0 ? c.rest - 1 : 0;
  c.span = c.lost ? 2 * c.span : c.span;
  c.old_error = c.lost ? kInfinite : c.error;
  if (!c.advance) return;
  c.eps_old = c.eps, c.eps = c.eps_next;
  c.held = 0, c.slot = -1, c.fresh = 1;
  c.old_error = c.best = c.mark = kInfinite;
  c.since = c.rest = c.count = 0, c.span = kRest;
  c.level++;
}

template <class T>
__device__ __noinline__ void residual(const Batch<T>& batch, int t, const Settings& settings, const State<T>& state, int slice,
                                      int slices, StepMemory& memory) {
  const Term<T> q = term_at(batch, t);
  const Reach rho = reach_of(settings.reach, kind_of(batch, t));
  if (threadIdx.x == 0) {
    Control c = state.now[t];
    judge(c, state.sums + static_cast<long>(t) * slices * kSums, slices, q.same, settings, rho);
    if (c.advance) c.eps_next = temperature(c, settings, batch.cost.p, c.level + 1);
    memory.control = c;
    if (slice == 0) state.next[t] = c;
  }
  block_barrier();
  const Control& c = memory.control;
  const Slice part = slice_of(q.size(), slice, slices);
  double products[2 * kWindow];
  for (int k = 0; k < 2 * kWindow; k++) products[k] = 0;
  for (int e = part.first + threadIdx.x; e < part.last; e += blockDim.x) {
    const long place = q.place(e);
    const bool row = e < q.n;
    const double z = state.z[place];
    const double side = row ? rho.x : rho.y, translation = row ? c.translation : -c.translation;
    if (c.finished) {
      // Points without weight have not counted in the error: they get their half-step.
      const bool counted = q.weight(e) > 0 || !std::isfinite(state.log_sums[place]);
      state.z[place] = (counted ? z : (z - c.eps * state.log_sums[place]) / (1 + c.eps / side)) + translation;
      continue;
    }
    const double image = averaged(z, state.log_sums[place], c.eps, side) + translation;
    const double rest = image - z;
    if (c.better || c.n_iter == 1) state.best[place] = z;
    if (c.mix) {
      const double weight = q.weight(e);
      const T own = static_cast<T>(rest - state.residual[place]);
      state.residuals[c.slot * state.length + place] = own;
      state.images[c.slot * state.length + place] = static_cast<T>(image - state.image[place]);
#pragma unroll
      for (int h = 0; h < kWindow; h++) {
        if (h >= c.held) continue;
        const double difference = weight * static_cast<double>(h == c.slot ? own : state.residuals[h * state.length + place]);
        products[h] += difference * static_cast<double>(own);
        products[kWindow + h] += difference * rest;
      }
    }
    state.image[place] = image, state.residual[place] = rest;
  }
  if (c.mix && !c.finished) {
    block_sums(products, memory.scratch);
    double* out = state.products + (static_cast<long>(t) * slices + slice) * 2 * kWindow;
    for (int k = threadIdx.x; k < 2 * kWindow; k += blockDim.x) out[k] = memory.scratch[blockDim.x / kWarp * 2 * kWindow + k];
  }
  block_barrier();
}

// Solves gram x = right for the `held` first unknowns by Gauss-Jordan elimination, a row a lane; false where a pivot is
// not positive. Called by a whole warp.
__device__ inline bool eliminate(const double* gram, const double* right, int held, double* solution) {
  const int lane = threadIdx.x % kWarp;
  const bool own = lane < held;
  double trace = 0, row[kWindow];
  for (int h = 0; h < held; h++) trace += gram[h * kWindow + h];
  const double ridge = trace > 0 ? kRidge * trace : 1;
#pragma unroll
  for (int k = 0; k < kWindow; k++)
    row[k] = own && k < held ? gram[lane * kWindow + k] + (k == lane ? ridge : 0) : k == lane ? 1.0 : 0.0;
  double rest = own ? right[lane] : 0;
  bool positive = true;
#pragma unroll
  for (int j = 0; j < kWindow; j++) {
    const double pivot = shuffle(row[j], j);
    positive = positive && pivot > 0;
    const double factor = lane == j ? 0 : row[j] / pivot;
#pragma unroll
    for (int k = 0; k < kWindow; k++) {
      const double above = shuffle(row[k], j);
      row[k] -= factor * above;
    }
    rest -= factor * shuffle(rest, j);
  }
#pragma unroll
  for (int k = 0; k < kWindow; k++)
    if (k == lane) solution[k] = rest / row[k];
  return positive;
}

template <class T>
__device__ __noinline__ void combine(const Batch<T>& batch, int t, const State<T>& state, int slice, int slices,
                                     StepMemory& memory) {
  const Term<T> q = term_at(batch, t);
  if (threadIdx.x == 0) memory.control = state.next[t], memory.solved = 1;
  block_barrier();
  const Control& c = memory.control;
  if (c.mix && !c.finished) {
    if (static_cast<int>(threadIdx.x) < 2 * kWindow) {
      const double* own = state.products + static_cast<long>(t) * slices * 2 * kWindow + threadIdx.x;
      double sum = 0;
      for (int s = 0; s < slices; s++) sum += own[s * 2 * kWindow];
      memory.gathered[threadIdx.x] = sum;
    }
    double* gram = state.gram + static_cast<long>(t) * kWindow * kWindow;
    block_barrier();
    for (int k = threadIdx.x; k < kWindow * kWindow; k += blockDim.x) {
      const int i = k / kWindow, j = k % kWindow;
      const bool fresh = i == c.slot || j == c.slot;
      if (i >= c.held || j >= c.held) continue;
      memory.gram[k] = fresh ? memory.gathered[i == c.slot ? j : i] : gram[k];
      if (fresh && slice == 0) gram[k] = memory.gram[k];
    }
    block_barrier();
    if (threadIdx.x < kWarp) {
      const bool solved = eliminate(memory.gram, memory.gathered + kWindow, c.held, memory.coefficients);
      if (threadIdx.x == 0) memory.solved = solved;
    }
    block_barrier();
  }
  const Slice part = slice_of(q.size(), slice, slices);
  for (int e = part.first + threadIdx.x; e < part.last && !c.finished; e += blockDim.x) {
    const long place = q.place(e);
    double z = c.lost ? state.best[place] : state.image[place];
    if (c.mix && memory.solved && !c.lost)
      for (int h = 0; h < c.held; h++)
        z -= memory.coefficients[h] * static_cast<double>(state.images[h * state.length + place]);
    if (c.advance) {
      const double before = state.old[place];
      state.old[place] = z;
      // The first temperature has no predecessor: nothing to extrapolate from.
      if (c.level > 0) z += (c.eps_next - c.eps) / (c.eps - c.eps_old) * (z - before);
    }
    state.z[place] = z;
  }
  block_barrier();
  if (slice == 0 && threadIdx.x == 0) {
    Control after = c;
    if (after.finished) {
      if (!state.finished[t]) add_atomically(state.remaining, -1);
      state.finished[t] = 1;
    } else {
      if (!memory.solved) after.held = 0, after.slot = -1, after.fresh = 1;
      settle(after);
      after.better = after.lost = after.advance = after.mix = 0;
    }
    state.now[t] = after;
    state.eps[t] = after.eps;
  }
}

}  // namespace otcore::cuda
