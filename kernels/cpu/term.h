// One optimal-transport problem between two clouds: the sums of its plan, with what keeps them right in any
// range, and what is computed from them.
#pragma once
#include <memory>
#include <vector>

#include "cloud.h"
#include "field.h"

namespace otcore {

struct Cost {
  int p;         // 2: |x-y|^2 / 2, 1: |x-y|
  double floor;  // p = 1: squared distances are raised to this (0: the true distance)
};

// The clouds of a problem. For p = 2 each has its own centre, the linear part of the cost being exact; for p = 1
// they share one, so that points that coincide still do.
struct Clouds {
  std::unique_ptr<Cloud> x, y;

  template <class T>
  Clouds(const T* x, const T* a, long n, const T* y, const T* b, long m, int d, int p, bool sort, int threads);
};

// Whether logits between the clouds range so widely at this temperature that compact tiles pay: exponentials
// can then be split (sweep.cpp) and tile pairs skipped, and rounding of the logits is negligible.
template <class T>
bool wants_tiles(const Cloud& x, const Cloud& y, Cost cost, double eps);

template <class T>
class Term {
 public:
  // `same`: y is x and the two potentials are one (g is then f).
  Term(const Cloud& x, const Cloud& y, Cost cost, bool same, bool balanced);

  // Potentials in place order.
  std::vector<double> f, g;
  // After sums(): natural logarithms of the row and column sums, and the sums.
  std::vector<double> log_r, log_c, r, c;
  // The most that skipped tiles and expansions may have cost, as a marginal error.
  double skipped() const { return skipped_ + field_.error(); }
  // Pairs of points that sums() has visited so far, and those that it left to expansions.
  double pairs = 0, far_pairs = 0;

  const Cloud& x() const { return *x_; }
  const Cloud& y() const { return *y_; }
  bool same() const { return same_; }
  double eps() const { return eps_; }
  // For a self-term: where a thread may have scaled the same cloud to the same temperature already.
  void share(const Term& cross) { cross_ = &cross; }
  double work() const;  // multiply-adds of one pass, roughly

  // Potentials that are zero once the clouds are centred.
  void zero();
  // `bits`: how right sums have to be where expansions serve them (negative: as right as is usual for T).
  void temperature(double eps, double bits = -1);
  // Row and column sums at (f, g) and the current temperature. Several terms share one parallel region. Sums out of
  // range are computed again unless `repaired` is false: then that is left to repair().
  static void sums(Term* const* terms, int count, int threads, bool repaired = true);
  void repair(int threads);

  // out[i] = log sum_j b_j exp((g_j - C_ij) / eps), C between centred points and g less its linear part, at
  // [count][d] points in the frame of x (transpose: sums over x at points in the frame of y).
  void log_sums_at(const double* points, long count, bool transpose, int threads, double* out) const;

  // sum_j b_j e_ij dC(x_i, y_j)/dx_i as [n][d] in place order; fills r. `normalise` divides by r, and then
  // f does not matter: rows whose sums are out of range are computed at their own softmin.
  void grad(bool normalise, int threads, std::vector<double>& out);
  // -eps log sum_j b_j exp((g_j - C_ij) / eps) for every x, in place order.
  std::vector<double> softmin(int threads);
  // sum_j b_j e_ij v_j with v [m][width] in place order; out [n][width]; fills r.
  void apply(const double* v, int width, int threads, std::vector<double>& out);

 private:
  static constexpr long kPart = 4096;         // sums finished by one task
  static constexpr long kSmallClouds = 4096;  // points
  int sides() const { return same_ ? 1 : 2; }
  void make_room();
  static void sums_as_they_are(Term* const* terms, int count, int threads);
  void sums_alone();
  void sums_found(int threads);
  void prepare_parts(bool transpose, int threads);
  void prepare_found(bool upper, int threads);
  void add_expansions(Sums kind, const double* values, int width, int threads, std::vector<double>& out);
  Pair<T> pair(int seat = 0) const;
  long chunks() const;
  long first_tile(long chunk) const;
  double common() const;
  void prepare(bool transpose, int seat);
  void sit(int seat);
  void sweep_chunk(long chunk, int seat);
  void finish(bool transpose, long first, long last);
  void repair(bool transpose, int threads);
  std::vector<long> out_of_range(bool transpose, const std::vector<double>& sums) const;
  std::vector<double> softmin_at(const std::vector<long>& places, bool transpose, int threads) const;
  template <class F>
  static Aligned<T> pack(long tiles, int width, F&& value);
  void grad_pass(int threads, std::vector<double>& out);
  void in_unit_mass(std::vector<double>& out, int width);

  const Cloud *x_, *y_;
  Cost cost_;
  bool same_;
  double cutoff_, least_, skipped_;  // tile pairs below 2^-cutoff are skipped; sums below `least` are recomputed
  double eps_ = 0, bits_ = 0;
  // The clouds as the kernels read them. Small ones every thread keeps for itself: cores may be far apart.
  struct Seat {
    Scaled<T> x, y;
    long sweep = 0;  // of which the potentials are
  };
  bool small() const { return x_->n + y_->n <= kSmallClouds; }
  std::vector<std::unique_ptr<Seat>> seats_;
  long sweep_ = 0;  // calls of sums()
  const Term* cross_ = nullptr;
  std::vector<double> linear_x_, linear_y_;  // C = |x - y|^2 / 2 for centred points, plus these
  Aligned<T> partial_;                       // column sums of each chunk of rows
  std::unique_ptr<bool[]> touched_;          // [chunks][y.tiles] where those are written
  Field<T> field_;
};

}  // namespace otcore
