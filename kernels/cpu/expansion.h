// What the expansion verbs read: boxes of points in the plane, between which the Gaussian is expanded in Chebyshev
// polynomials. In units of log2, with potentials h and scaled points U, V of two boxes with centres c, c':
//   h_i + h_j - |U_i - V_j|^2 / 2 = [h_i - top - slope.u] + [h_j - top' - slope'.v] + K(u, v),  u = U - c, v = V - c',
// where slopes follow the potentials, so that the brackets are small and 2^K is smooth: it is interpolated in both
// of its arguments at kOrder nodes a dimension, on boxes of half-width `half` around the centres.
#pragma once

namespace otcore {

constexpr int kOrder = 16;
constexpr int kNodes = kOrder * kOrder;
constexpr int kPlane = 2;

// Chebyshev nodes and what goes between values at nodes and coefficients, for one half-width.
template <class T>
struct Chebyshev {
  double half;
  alignas(64) T node[kOrder];     // in [-half, half]
  alignas(64) T to_nodes[kNodes];    // [node][degree]: the polynomial that is 1 at a node and 0 at the others
  alignas(64) T from_nodes[kNodes];  // its transpose
  alignas(64) T kernel[kNodes];      // 2^{u v} at nodes u, v
};

// The boxes of one side. Boxes are runs of tiles.
template <class T>
struct Boxed {
  const Chebyshev<T>* nodes;
  long n;                 // points; the last tile is padded
  const double* points;   // [tiles][2][kTile] unscaled, less the cloud's centre
  double factor;          // U = factor * points
  const T* weight;        // [tiles][kTile]
  const double* h;        // [tiles][kTile]
  const long* first;      // [boxes + 1] tiles
  const double* centre;   // [boxes][2] scaled
  double* slope;          // [boxes][2]
  double* top;            // [boxes] the largest h - slope.u
  T* level;               // [tiles][kTile] 2^(h - slope.u - top)
};

// How an expansion is summed: weights only, or with them values of the points, or these as the derivative in u.
enum class Sums { weights, values, gradient };

}  // namespace otcore
