// What the kernels read: one side of a cost matrix at one temperature, in tiles of 32 points.
// Plain data, shared by every instruction set. Everything is in units of log2: with k = log2(e) / eps,
//   p = 2:  log2 e_ij = k f_i + k g_j - |u_i - v_j|^2 / 2,  u = sqrt(k) x
//   p = 1:  log2 e_ij = k f_i + k g_j - |u_i - v_j|,        u = k x
#pragma once
#include "expansion.h"
#include "radial.h"
#include "slice.h"

namespace otcore {

constexpr int kTile = 32;

template <class T>
struct Side {
  long n;                // points
  long tiles;            // ceil(n / kTile)
  int d;                 // dimension
  const T* u;            // [tiles][d][kTile] scaled coordinates relative to the tile's frame
  const double* exact;   // the same before rounding to T; null when the pair has no frames
  const T* weight;       // [tiles][kTile] in a unit of the caller's; 0 in padding
  const double* h;       // [tiles][kTile] k f
  const double* half;    // [tiles][kTile] |u|^2 / 2 when p = 2, else 0
  const T* flat;         // [tiles][kTile] h - half rounded to T: what a pair without frames adds
  const double* frame;   // [d][tiles] the frames' origins, scaled; zeros when the pair has no frames
  const double* lo;      // [d][tiles] bounding boxes, scaled
  const double* hi;      // [d][tiles]
  const double* radius;  // [tiles] largest |u| in the tile
  const double* top;     // [tiles] largest k f in the tile
  const double* low;     // [tiles] smallest of `flat` in the tile
  const bool* unit;      // [tiles] whether every weight of the tile is 1
};

struct Tiles {
  long first, last;  // [first, last)
};

template <class T>
struct Pair {
  const Side<T>* x;
  const Side<T>* y;
  int p;           // 1 or 2
  bool framed;     // tiles have frames of their own (p = 2 only)
  bool same;       // y is x: the plan is symmetric
  T floor;         // p = 1: squared scaled distances are raised to this (0: the true distance)
  double cutoff;   // tile pairs whose logits are all below -cutoff are skipped
  // Which tiles of y the rows of each box of x need, in runs; null: all of them. For a symmetric sweep, those from
  // the box's own on.
  const Tiles* near;        // [near_from[boxes]]
  const long* near_from;    // [boxes + 1]
  const int* box_of;        // [x.tiles]
};

// How apply and grad read the values of y: few of them a point as [tiles][width][kTile], more of them as
// [tiles][kTile][gather_stride], zero beyond the width. The gradient of p = 1 sums differences, which take the first.
constexpr bool gathers_narrow(int width, bool gradient, int p) { return width <= 8 || (gradient && p == 1); }
constexpr int gather_stride(int width, int lanes) { return (width + lanes - 1) / lanes * lanes; }

// The verbs, one table per instruction set. Rows are those of tiles [tile0, tile1) of x; rows[] and out[] start
// at the first of them.
template <class T>
struct Verbs {
  // rows[i] = sum_j b_j e_ij; cols[j] = sum_i a_i e_ij over these rows only, written for the tiles of y that are
  // marked as touched. When the pair is `same`, tiles above the diagonal are visited once and give both.
  void (*sweep)(const Pair<T>&, long tile0, long tile1, double* rows, T* cols, bool* touched);
  // rows[i] = sum_j b_j e_ij; out[i][k] = sum_j b_j e_ij v[j][k]. v as `gathers_narrow` says.
  void (*apply)(const Pair<T>&, long tile0, long tile1, const T* v, int width, double* rows, double* out);
  // rows[i] = sum_j b_j e_ij; out[i][k] = sum_j b_j e_ij d(logit)/du_k, at the scaled coordinates. v is y.u laid out
  // as `gathers_narrow` says.
  void (*grad)(const Pair<T>&, long tile0, long tile1, const T* v, double* rows, double* out);
  // sums[j] = (sums[j] + the parts' [j]) * unit, for parts [count][stride tiles] of which only the touched tiles count
  void (*reduce)(const T* parts, const bool* touched, long count, long stride, long tiles, double unit, double* sums);
  // What a Side holds of points [tiles][d][kTile]: u, half and radius of factor * points, less the frames [d][tiles]
  // where there are some, and `exact` then.
  void (*scale)(const double* points, long tiles, int d, double factor, const double* frame, T* u, double* exact,
                double* half, double* radius);
  // sums[i] += sum_j w_j k_ij and, where wanted, force[i] += sum_j w_j dk_ij/du_i, over the pairs of two blocks of
  // tiles that are apart or the same, each pair once for both its points. sums [tiles][kTile], force
  // [tiles][d][kTile].
  void (*radial)(const Radial<T>&, Block rows, Block columns, double* sums, double* force);
  // Expansions between boxes (expansion.h). Of a box's potentials: slope, top and levels.
  void (*fit)(const Boxed<T>&, long box);
  // nodes [1 + width][kNodes]: the box's weights, and these times each of values [n][width], as if at the nodes.
  void (*collect)(const Boxed<T>&, long box, Sums, const double* values, int width, T* nodes);
  // local [1 + width][kNodes] += what the boxes of y listed, of which nodes [boxes][1 + width][kNodes] are given, add
  // at the nodes of box `to` of x.
  void (*translate)(const Boxed<T>& x, long to, const Boxed<T>& y, const long* from, long count, Sums, int width,
                    const T* nodes, T* local);
  // rows[i] += and out[i][k] += the values at the box's points. rows and out start at tile 0.
  void (*evaluate)(const Boxed<T>&, long box, Sums, int width, const T* local, double* rows, double* out);
  // A product of matrices for one tile of points.
  void (*product)(const TileProduct<T>&);
  void (*transpose)(const Transposition<T>&);
  // The cost of transport along one direction; false where a position is not finite.
  bool (*slice)(const Line<T>&, const SliceScratch<T>&, double* cost);
};

struct Isa {
  const char* name;
  int vector_bits;
  Verbs<float> f32;
  Verbs<double> f64;
  // out[i] = log2 sum_j b_j 2^(k g_j - cost_ij), safe in any range, at `count` points given as [d][count] in
  // the scaled coordinates of a pair without frames, of which only y is read.
  void (*softmin)(const Pair<double>&, const double* points, long count, double* out);
  // out = log2(in) for positive normal numbers
  void (*log2)(const double* in, long n, double* out);
  // dots[h] = sum_i w_i history[h][i] z_i
  void (*dots)(const double* const* history, int count, const double* w, const double* z, long n, double* dots);
  // z_i -= sum_h gamma[h] history[h][i]
  void (*combine)(const double* const* history, int count, const double* gamma, long n, double* z);
};

}  // namespace otcore
