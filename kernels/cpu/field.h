// How the pairs of two clouds are found and summed at one temperature: tile by tile, tiles found by trees, or most of
// them by expansions between boxes.
#pragma once
#include <utility>
#include <vector>

#include "boxes.h"

namespace otcore {

template <class T>
class Field {
 public:
  Field(const Cloud& x, const Cloud& y, int p, bool same, double cutoff)
      : x_(&x), y_(&y), p_(p), same_(same), cutoff_(cutoff), boxes_x_(x), boxes_y_(y) {}

  enum class Plan { all, trees, expansions };
  Plan plan() const { return plan_; }
  // At a new temperature, where U = factor * points; `sparse`: whether skipping tiles may pay at all. `bits`: how right
  // expansions have to be.
  void choose(double factor, bool sparse, double bits);
  // At new potentials: what each box needs. `upper`: of a pair that is `same`, only from the box itself on.
  void search(const Side<T>& x, const Side<T>& y, bool upper, int threads);
  // What the verbs read of it.
  void attach(Pair<T>& pair) const;

  // The most that expansions may have cost, as a marginal error.
  double error() const { return error_; }
  // Whether a sum is so small that it may be wrong in earnest.
  bool doubtful(bool transpose, long place, double sum) const;
  // Remembers how small the sums of the tiles [first, last) are.
  void note(bool transpose, long first, long last, const double* sums);
  // Pairs of points that are visited one by one, and by expansions.
  double near_pairs() const { return near_pairs_; }
  double far_pairs() const { return far_pairs_; }

  // Expansions: collect, then every translation, then evaluate. `rows`: those of x only.
  void collect(bool rows, Sums sums, const double* values, int width, int threads);
  long translations() const;
  void translate(long task);
  void evaluate(bool transpose, double* sums, double* out, int threads);

 private:
  Boxes<T>& side_y() { return same_ ? boxes_x_ : boxes_y_; }
  const Boxes<T>& side_y() const { return same_ ? boxes_x_ : boxes_y_; }
  void cut(double bits);
  void find(bool upper, int threads);
  void assemble(const std::vector<typename Boxes<T>::Found>& found, bool upper);

  const Cloud *x_, *y_;
  int p_;
  bool same_;
  double cutoff_, factor_ = 0, doubtful_ = 0;
  Plan plan_ = Plan::all;
  Boxes<T> boxes_x_, boxes_y_;
  Boxed<T> view_x_{}, view_y_{};
  std::vector<Tiles> near_;      // of each box of x
  std::vector<long> near_from_;
  std::vector<long> far_, far_from_, back_, back_from_;  // far boxes of each of x, and x's of each of y
  std::vector<double> error_x_, error_y_;  // [boxes] the most that expansions change a sum by
  double error_ = 0, near_pairs_ = 0, far_pairs_ = 0;
  // The expansions under way.
  bool rows_ = false;
  Sums sums_ = Sums::weights;
  int width_ = 0;
  Aligned<T> nodes_x_, nodes_y_, local_x_, local_y_;  // [boxes][1 + width][kNodes]
};

}  // namespace otcore
