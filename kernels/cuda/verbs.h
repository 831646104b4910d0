// The verbs of the CUDA kernels, for clouds of at most 16 dimensions. Pointers are of the device; every call returns
// once its launches are queued on the stream.
#pragma once
#include "batch.h"

namespace otcore::cuda {

// Copies of the points in frames in which potentials are small, what those frames take off the potentials, the diagonal
// of the bounding box of each item, and `Batch::flat`.
template <class T>
struct Prepared {
  T *x, *y;           // [rows_x][d], [rows_y][d]
  double* shift;      // [rows_x + rows_y]
  double* offset;     // [items][d]
  double* diameters;  // [items]
  double* flat;       // [items]
};

template <class T>
void prepare(const Batch<T>& raw, const Prepared<T>& out, Stream stream);

// codes[row] of x, then of y: sorted by them, points that follow one another are near (d <= 4). `boxes` holds the smallest
// and the largest coordinates of each item of x, then of y: [2][items][2][d].
template <class T>
void order_codes(const Batch<T>& q, const double* boxes, long long* codes, Stream stream);

// How the sums of a batch are shared out.
struct Slots {
  int rows, columns;
};
template <class T>
Slots slots_of(const Batch<T>& q);

// Scratch memory in which softmin and apply (`pulls` 1) and gradients (2, with self-terms 4) bound what tiles of columns
// can add, to skip those that add nothing: numbers of T. It pays for clouds in spatial order; without it (null) every
// pair is visited.
template <class T>
std::size_t box_numbers(const Batch<T>& q, int pulls);

struct Reach {
  double x, y;  // rho of the two sides; infinite where a marginal is exact
};

// out[place] = -eps log sum_j b_j exp((g_j - C_ij) / eps), divided by 1 + eps / rho, for the rows of each term, or
// where `turned` for the columns of those that are not self-terms; g is null (zero) or as long as the rows of y.
template <class T>
void softmin(const Batch<T>& q, bool turned, const double* g, const double* eps, Reach reach, T* boxes, double* out,
             Stream stream);

// log_sums[place] = log r_i and log c_j; potentials likewise. Terms that are `finished` (null: none) are left alone, and
// pairs[term] counts the pairs visited. Scratch: [slots.rows + slots.columns][length].
template <class T>
void sweep(const Batch<T>& q, const double* potentials, const double* eps, const int* finished, T* scratch, double* log_sums,
           unsigned long long* pairs, Stream stream);

// out[row][k] = a_i sum_j b_j e_ij v[row of y][k].
template <class T>
void apply(const Batch<T>& q, const double* f, const double* g, const double* eps, const double* v, int width, T* boxes,
           T* out, Stream stream);

// w_x G_xy + w_xx G_xx and w_y G_yx + w_yy G_yy, where row i of G_xy is sum_j b_j e_ij dC(x_i, y_j) / dx_i.
template <class T>
struct Gradients {
  const double* weights[4];  // w_x [rows_x], w_y [rows_y], w_xx, w_yy; null: without that one
  bool normalise;            // each row divided by its sum
  T *x, *y;                  // [rows_x][d], [rows_y][d]; null: not wanted
};

template <class T>
void gradients(const Batch<T>& q, const double* potentials, const double* eps, const Gradients<T>& out, T* boxes, Stream stream);

struct Settings {
  double eps, scaling, diameter;  // diameter < 0: of the bounding box
  Reach reach;
  double tol;
  int max_iter;
  bool warm;  // the potentials hold a start
};

// Numbers told of each item: value, status, sweeps, marginal error, pairs.
constexpr int kTold = 5;

// Bytes of scratch memory that `solve` needs for a batch.
template <class T>
std::size_t solve_bytes(const Batch<T>& q);

// Anneals all terms of a batch (as otcore.solver.anneal, its reference): potentials [length] are the start where warm
// and receive the solution, told [items][kTold]. `interrupted` is asked from time to time where that is long.
// While the stream is being captured nothing is waited for: the loop becomes part of the graph.
template <class T>
void solve(const Batch<T>& q, const double* diameters, const Settings& settings, double* potentials, double* told, void* scratch,
           bool (*interrupted)(), Stream stream);

// A solve whose sweeps others make, in any dimension: only the weights of the batch are read. After `begin`, again and
// again: the log sums of the terms at the potentials and temperatures go where `places` says, then `decide` moves the
// potentials, until every term is finished.
struct StepPlaces {
  long eps, log_sums, finished;  // bytes into the scratch memory: [terms], [length], [terms] int
};

template <class T>
struct State;

template <class T>
class Steps {
 public:
  Steps(const Batch<T>& batch, const Settings& settings, double* potentials, void* scratch);
  std::size_t bytes() const;  // of scratch memory
  StepPlaces places() const;
  void begin(const double* diameters, Stream stream) const;
  void decide(Stream stream) const;
  void tell(double* told, Stream stream) const;

 private:
  State<T> state(std::size_t* used) const;

  Batch<T> batch_;
  Settings settings_;
  double* potentials_;
  void* scratch_;
};

}  // namespace otcore::cuda
