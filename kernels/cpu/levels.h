// Clouds with their points gathered into clusters, for the temperatures at which these cannot be told apart.
#pragma once
#include <memory>
#include <vector>

#include "cloud.h"

namespace otcore {

struct Level {
  std::unique_ptr<Cloud> cloud;  // centroids with their clusters' masses; null: the points themselves
  std::vector<long> first;       // [clusters + 1] the places where clusters begin: each is a run of points
  std::vector<int> place;        // [clusters] where they stand in `cloud`
};

// The clusters of an ordered cloud, at any radius.
class Clusters {
 public:
  explicit Clusters(const Cloud& fine);

  // Along the cloud's tree, the largest nodes whose points lie, in the quadratic mean, within `radius` of their
  // centroid and none of them far outside, and single points where there are none. No cloud when that leaves more than
  // a third of the points. `origin`: as for Cloud.
  Level gather(double radius, const double* origin = nullptr) const;

 private:
  friend class Gatherer;
  // Of each node of the tree: mass, weighted squares, and weighted sums [d].
  double* moments(long node) { return &moments_[node * (2 + fine_.d)]; }
  const double* moments(long node) const { return &moments_[node * (2 + fine_.d)]; }
  void add_up(long node);

  const Cloud& fine_;
  std::vector<double> moments_;
};

// For each place of `next`, the place of `now` that holds its first point. The levels are of one cloud of n points.
std::vector<int> parents(const Level& next, const Level& now, long n);

// Values at the points of `fine` of a function known with its gradient [coarse n][d] at those of `coarse`, each from
// its parent there.
std::vector<double> extend(const Cloud& coarse, const std::vector<double>& values, const std::vector<double>& slopes,
                           const Cloud& fine, const std::vector<int>& parents);

}  // namespace otcore
