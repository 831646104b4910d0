INFO: int  # numbers told of each item: value, status, sweeps, marginal error, pairs

class Batch:
    def __init__(
        self,
        wide: bool,
        x: int,
        y: int,
        a: int,
        b: int,
        n: list[int],
        m: list[int],
        d: int,
        p: object,
        floor: float,
        threads: int,
    ) -> None: ...

def anneal(
    batch: Batch,
    eps: float,
    rho_x: float,
    rho_y: float,
    scaling: float,
    diameter: float,
    debias: bool,
    tol: float,
    max_iter: int,
    warm: bool,
    verbose: bool,
    potentials: list[int],
    info: int,
) -> None: ...
def follow(
    batch: Batch,
    schedule: list[float],
    rho_x: float,
    rho_y: float,
    debias: bool,
    cluster: bool,
    verbose: bool,
    before: list[int],
    after: list[int],
    info: int,
) -> None: ...
def sweep(
    batch: Batch,
    wide: bool,
    f: int,
    g: int,
    eps: float,
    same: bool,
    log_r: int,
    log_c: int,
) -> None: ...
def softmin(batch: Batch, g: int, eps: float, out: int) -> None: ...
def gradients(
    batch: Batch,
    eps: float,
    potentials: list[int],
    weights: list[int],
    normalise: bool,
    out_x: int,
    out_y: int,
) -> None: ...
def apply(batch: Batch, f: int, g: int, eps: float, same: bool, v: int, width: int, out: int) -> None: ...
def diameter(batch: Batch) -> float: ...
def isa() -> str: ...
def plain() -> bool: ...

class Kernel:
    gaussian: Kernel
    laplacian: Kernel
    energy: Kernel
    inverse_multiquadric: Kernel

def kernel_norms(
    wide: bool,
    x: int,
    a: int,
    y: int,
    b: int,
    count: int,
    n: int,
    m: int,
    d: int,
    kernel: Kernel,
    blurs: list[float],
    unbiased: bool,
    threads: int,
    sums: int,
    force: int,
) -> None: ...
def sliced(
    wide: bool,
    x: int,
    y: int,
    a: int,
    b: int,
    directions: int,
    n: list[int],
    m: list[int],
    d: int,
    count: int,
    own: bool,
    p: float,
    root: bool,
    threads: int,
    value: int,
    costs: int,
    slope_x: int,
    slope_y: int,
) -> bool: ...
def scale_items(
    wide: bool, source: int, factors: int, sizes: list[int], threads: int, target: int
) -> None: ...
