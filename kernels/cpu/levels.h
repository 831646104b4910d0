// Clouds with their points gathered into clusters, for the temperatures at which these cannot be told apart.
#pragma once
#include <memory>
#include <vector>

#include "cloud.h"

namespace otcore {

struct Level {
  std::unique_ptr<Cloud> cloud;  // centroids with their clusters' masses; null: the points themselves
  std::vector<int> of;           // [n] the place in `cloud` of each place of the points
};

// The clusters of an ordered cloud along its tree: the largest nodes whose points lie, in the quadratic mean, within
// `radius` of their centroid and none of them far outside, and single points where there are none. Null when that leaves more than a third of the
// points. `origin`: as for Cloud.
Level gather_clusters(const Cloud& fine, double radius, const double* origin = nullptr);

// Values at the points of `fine` of a function known with its gradient [coarse n][d] at those of `coarse`, each from
// its parent there.
std::vector<double> extend(const Cloud& coarse, const std::vector<double>& values, const std::vector<double>& slopes,
                           const Cloud& fine, const std::vector<int>& parents);

}  // namespace otcore
