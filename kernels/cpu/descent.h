// Potentials of one term carried through temperatures and levels of clusters, coarse to fine.
#pragma once
#include <memory>
#include <vector>

#include "levels.h"
#include "term.h"

namespace otcore {

// The points or, where temperatures cannot tell them apart, clusters of them.
template <class T>
class Descent {
 public:
  // `fine` stays the last level; where it is not ordered, the only one.
  Descent(Term<T>& fine, Cost cost, bool balanced) : fine_(fine), cost_(cost), balanced_(balanced) {}

  // Clusters no wider than `radius` (0: points), with the potentials carried over at first order: `share_x` and
  // `share_y` are what damps them where mass is free. True where the term is a new one.
  bool to(double radius, double share_x, double share_y, int threads);
  // Potentials of the clusters, as the mean of those of their points.
  void restrict();
  Term<T>& term() { return own_ ? *own_ : fine_; }
  // Potentials at the last temperature, carried along.
  std::vector<double> f_before, g_before;

 private:
  Term<T>& fine_;
  Cost cost_;
  bool balanced_, started_ = false;
  double radius_ = 0;
  std::unique_ptr<Clusters> clusters_x_, clusters_y_;
  Level x_, y_;
  std::unique_ptr<Term<T>> own_;
};

}  // namespace otcore
