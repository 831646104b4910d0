// The accelerated solve of one term at one temperature after another.
#pragma once
#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "anderson.h"
#include "pool.h"
#include "solve.h"

namespace otcore {

constexpr int kWindow = 10;
constexpr double kBetween = 0.01;   // marginal error at which annealing moves on
constexpr long kBetweenSweeps = 60; // and the sweeps after which it does so anyway
constexpr long kPatience = 60;      // sweeps without a tenth of progress after which acceleration rests
constexpr long kRest = 10;          // for this many plain updates at first, twice as many every further time
constexpr int kRests = 2;           // in float32, rests after which rounding is what keeps a solve from its end
constexpr double kLost = 1.4;         // mean |log| of what sums are off by, from which potentials are no good start
constexpr double kSpareBits = 5;    // of sums served by expansions, beyond the marginal error wanted
constexpr double kFewestBits = 12;  // and in any case
constexpr double kLargest = 300;    // exponent beyond which a marginal is so wrong that its size no longer matters

using Vector = std::vector<double>;

inline double damping(double eps, double rho) { return std::isinf(rho) ? 1 : rho / (rho + eps); }

inline double dot(const Vector& w, const Vector& v) {
  double s = 0;
  for (size_t i = 0; i < w.size(); i++) s += w[i] * v[i];
  return s;
}

// log (<a, e^{-f/rho}> / m_a), in any range and without cancellation where rho is large; the potentials of points
// without weight do not matter.
inline double log_share_left(const Vector& w, double mass, const double* f, double rho) {
  if (std::isinf(rho)) return 0;
  double top = -INFINITY, low = INFINITY, s = 0;
  for (size_t i = 0; i < w.size(); i++)
    if (w[i] > 0) top = std::max(top, -f[i] / rho), low = std::min(low, -f[i] / rho);
  const bool small = top < 1 && low > -1;
  for (size_t i = 0; i < w.size(); i++)
    if (w[i] > 0) s += w[i] / mass * (small ? std::expm1(-f[i] / rho) : std::exp(-f[i] / rho - top));
  return small ? std::log1p(s) : top + std::log(s);
}

inline double side_error(const Vector& w, const Vector& sums, const Vector& f, double rho, int threads) {
  const double most = std::exp(kLargest);
  const long n = static_cast<long>(w.size());
  const bool exact = std::isinf(rho);
  Vector parts(blocks_of(n));
  each_block_of(n, threads, [&](long first, long last, long block) {
    double s = 0;
    for (long i = first; i < last; i++) {
      const double target = exact ? 1 : std::exp(std::min(-f[i] / rho, kLargest));
      s += w[i] * std::abs(std::min(sums[i], most) - target);
    }
    parts[block] = s;
  });
  double s = 0;
  for (const double part : parts) s += part;
  return s;
}

inline double side_off(const Vector& w, const Vector& logs, const Vector& f, double rho) {
  double s = 0;
  for (size_t i = 0; i < w.size(); i++) s += w[i] * std::min(std::abs(logs[i] + (std::isinf(rho) ? 0 : f[i] / rho)), kLargest);
  return s;
}

// <a, f>, or rho (m_a - <a, e^{-f/rho}>)
inline double side_value(const Vector& w, const Vector& f, double rho) {
  if (std::isinf(rho)) return dot(w, f);
  double s = 0;
  for (size_t i = 0; i < w.size(); i++) s -= w[i] * std::expm1(-f[i] / rho);
  return rho * s;
}

// An accelerated solve of one term.
template <class T>
class Solver {
 public:
  Solver(Term<T>& term, double rho_x, double rho_y, const Settings& s, int threads)
      : t_(term), s_(s), rho_x_(rho_x), rho_y_(rho_y), threads_(threads), anderson_(weights(term), window(term)) {}

  Term<T>& term() { return t_; }

  double error = INFINITY;
  long n_iter = 0;
  int status = kMaxIter;
  bool stalled = false;  // for want of digits: float64 would go on

  // Both half-steps from potentials that are zero between the centred clouds; of a self-term, the fixed point of equal
  // ones, from a constant that keeps the sums in range.
  void start(double eps, bool last) {
    t_.temperature(eps, bits(last ? s_.tol : between()));
    t_.zero();
    if (t_.same()) {
      const Cloud& x = t_.x();
      const double lam = damping(eps, rho_x_), level = x.mass > 0 ? -0.25 * eps * (std::log(x.heaviest) + std::log(x.mass)) : 0;
      for (double& v : t_.f) v = level;
      sums();
      for (size_t i = 0; i < t_.f.size(); i++) t_.f[i] = lam / (1 + lam) * (2 * level - eps * t_.log_r[i]);
      return;
    }
    sums();
    for (size_t i = 0; i < t_.f.size(); i++) t_.f[i] = damping(eps, rho_x_) * (t_.f[i] - eps * t_.log_r[i]);
    for (size_t j = 0; j < t_.g.size(); j++) t_.g[j] = damping(eps, rho_y_) * (t_.g[j] - eps * t_.log_c[j]);
  }

  // The marginal error as it is; infinite where a cold start is nearer to the end.
  double look(double eps) {
    t_.temperature(eps, bits(s_.tol));
    sums(false);
    n_iter++;
    if (!(off() <= kLost)) return INFINITY;
    t_.repair(threads_);
    looked_ = true;
    return measure();
  }

  // Sweeps at one temperature: at the last until the error is below tol, or max_iter times; else until it is below
  // `enough`, or `most` times. False when the whole solve is over. Plain updates always converge, accelerated ones nearly always: where they
  // get no further, the best potentials so far are taken up again by plain ones for a while.
  bool settle(double eps) { return stay(eps, true, s_.tol, s_.max_iter); }
  bool pass(double eps) { return stay(eps, false, between(), kBetweenSweeps); }
  bool stay(double eps, bool last, double enough, long most) {
    t_.temperature(eps, bits(enough));
    anderson_.reset();
    double before = INFINITY, best = INFINITY, mark = INFINITY;
    long since = 0, rest = 0, span = kRest;
    int rests = 0;
    Vector best_f, best_g;
    for (long sweeps = 1;; sweeps++) {
      if (!std::exchange(looked_, false)) sums(), n_iter++;
      error = measure();
      if (s_.report) s_.report({t_.same(), eps, t_.x().n, t_.y().n, sweeps, error});
      if (!std::isfinite(error) && std::isinf(best)) return status = kNotFinite, false;
      if (last && error <= s_.tol) return status = kConverged, false;
      if (error < best) best = error, best_f = t_.f, best_g = t_.g;
      since = error < 0.9 * mark ? 0 : since + 1;
      if (since == 0) mark = error;
      if (s_.interrupted && s_.interrupted()) return status = kInterrupted, false;
      const bool over = sweeps >= most;
      if (!std::isfinite(error) || (error > best && over) || (rest == 0 && since >= kPatience)) {
        if (!over) rests++;
        t_.f = best_f, t_.g = best_g;
        if (sizeof(T) == 4 && last && rests == kRests) {
          error = best;
          return stalled = true, false;
        }
        anderson_.reset();
        before = INFINITY, since = 0, rest = span, span *= 2;
        if (over && !last) return true;
        if (!over) continue;
        sums();
        error = measure();
      }
      if (over && last) return false;
      const bool leave = !last && (error < enough || over);
      update(rest > 0 || error > 2 * before);
      if (leave) return true;
      if (rest > 0 && --rest == 0) since = 0;
      before = error;
    }
  }

  double value() const {
    const Vector &a = t_.x().weights, &b = t_.y().weights;
    const double fx = side_value(a, t_.f, rho_x_);
    const double gy = t_.same() ? fx : side_value(b, t_.g, rho_y_);
    return fx + gy - t_.eps() * (dot(a, t_.r) - t_.x().mass * t_.y().mass);
  }

  // Points without weight do not count in the error: a whole half-step gives them the potentials that the others mean.
  void place_massless() {
    auto place = [&](const Vector& weights, const Vector& logs, double rho, Vector& potential) {
      const double lam = damping(t_.eps(), rho);
      for (size_t i = 0; i < potential.size(); i++)
        if (weights[i] == 0 && std::isfinite(logs[i])) potential[i] = lam * (potential[i] - t_.eps() * logs[i]);
    };
    place(t_.x().weights, t_.log_r, rho_x_, t_.f);
    if (!t_.same()) place(t_.y().weights, t_.log_c, rho_y_, t_.g);
  }

  // A balanced problem fixes f and g up to a constant: <a,f> = <b,g>.
  void gauge() {
    if (t_.same() || !std::isinf(rho_x_) || !std::isinf(rho_y_) || !(t_.x().mass > 0)) return;
    const double shift = 0.5 * (dot(t_.x().weights, t_.f) - dot(t_.y().weights, t_.g)) / t_.x().mass;
    for (double& v : t_.f) v -= shift;
    for (double& v : t_.g) v += shift;
  }

 private:
  // As many steps as there are unknowns would fit them all, and then extrapolate wildly.
  static int window(const Term<T>& t) {
    return static_cast<int>(std::clamp<long>((t.x().n + t.y().n) / 3, 2, kWindow));
  }

  static Vector weights(const Term<T>& t) {
    Vector w = t.x().weights;
    if (!t.same()) w.insert(w.end(), t.y().weights.begin(), t.y().weights.end());
    return w;
  }

  void sums(bool repaired = true) {
    Term<T>* term = &t_;
    Term<T>::sums(&term, 1, threads_, repaired);
  }

  // How right sums need to be: a part of the marginal error that is asked for.
  static double bits(double enough) { return std::clamp(kSpareBits - std::log2(enough), kFewestBits, 40.0); }
  double between() const { return std::max(s_.tol, kBetween); }

  double measure() const {
    const double rows = side_error(t_.x().weights, t_.r, t_.f, rho_x_, threads_);
    const double columns = t_.same() ? rows : side_error(t_.y().weights, t_.c, t_.g, rho_y_, threads_);
    return (t_.skipped() + rows + columns) * 2 / (t_.x().mass + t_.y().mass);
  }

  // How far the logarithms of sums are from what they should be, in the mean.
  double off() const {
    const double rows = side_off(t_.x().weights, t_.log_r, t_.f, rho_x_);
    const double columns = t_.same() ? rows : side_off(t_.y().weights, t_.log_c, t_.g, rho_y_);
    return (rows + columns) / (t_.x().mass + t_.y().mass);
  }

  // The averaged update, accelerated unless `plain`.
  void update(bool plain) {
    const long n = static_cast<long>(t_.f.size()), m = static_cast<long>(t_.g.size());
    z_.resize(n + m), image_.resize(n + m);
    average(t_.f, t_.log_r, damping(t_.eps(), rho_x_), 0);
    average(t_.g, t_.log_c, damping(t_.eps(), rho_y_), n);
    if (!t_.same() && !(std::isinf(rho_x_) && std::isinf(rho_y_))) translate();
    if (plain) {
      anderson_.reset();
      z_.swap(image_);
    } else {
      anderson_.step(z_, image_, threads_);
    }
    std::copy_n(z_.begin(), n, t_.f.begin());
    std::copy_n(z_.begin() + n, m, t_.g.begin());
  }

  // From `from` on: z = f, and its image (f + lam softmin(g)) / 2 from the logarithms of sums.
  void average(const Vector& potential, const Vector& log_sums, double lam, long from) {
    const double eps = t_.eps(), *f = potential.data(), *log_r = log_sums.data();
    double *z = z_.data() + from, *image = image_.data() + from;
    each_block_of(static_cast<long>(potential.size()), threads_, [&](long first, long last, long) {
      for (long i = first; i < last; i++) z[i] = f[i], image[i] = 0.5 * ((1 + lam) * f[i] - lam * eps * log_r[i]);
    });
  }

  // Unbalanced: the best constant to move from g to f, in closed form.
  void translate() {
    const double share = std::isinf(rho_x_) ? rho_y_ : std::isinf(rho_y_) ? rho_x_ : rho_x_ * rho_y_ / (rho_x_ + rho_y_);
    const Cloud &x = t_.x(), &y = t_.y();
    double *f = image_.data(), *g = f + x.n;
    const double left = log_share_left(x.weights, x.mass, f, rho_x_), right = log_share_left(y.weights, y.mass, g, rho_y_);
    const double shift = share * (std::log(x.mass / y.mass) + left - right);
    if (!std::isfinite(shift)) return;
    for (long i = 0; i < x.n; i++) f[i] += shift;
    for (long j = 0; j < y.n; j++) g[j] -= shift;
  }

  Term<T>& t_;
  const Settings& s_;
  double rho_x_, rho_y_;
  int threads_;
  bool looked_ = false;  // the sums are those of the potentials as they are
  Anderson anderson_;
  Vector z_, image_;  // [f; g] and their update
};

}  // namespace otcore
