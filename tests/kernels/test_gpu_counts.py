"""What `benchmarks/gpu` counts in machine code and predicts from it, against loops counted by hand."""

from __future__ import annotations

import math

import pytest
import torch

from benchmarks.gpu import kernels, predict, sass, tiles
from benchmarks.gpu.chips import A100, H100, H200
from benchmarks.gpu.kernels import Counted, Work
from tests.kernels import compiled
from tests.problems import cloud

pytest.importorskip("triton", reason="triton, which brings cuobjdump, is not installed")

# Two pairs a pass, four passes a tile; a loop beside them fills shared memory. Behind the end: a rare path.
LISTING = """
        /*0000*/                   S2R R0, SR_TID.X ;                     /* 0x0 */
        /*0010*/                   LDG.E.64 R2, [R4.64] ;                 /* 0x0 */
        /*0020*/                   STS [R6], R2 ;                         /* 0x0 */
        /*0030*/              @!P1 BRA 0x20 ;                             /* 0x0 */
        /*0040*/                   LDS.128 R8, [R6] ;                     /* 0x0 */
        /*0050*/                   FFMA R12, R8, R9, R10 ;                /* 0x0 */
        /*0060*/                   MUFU.EX2 R13, R12 ;                    /* 0x0 */
        /*0070*/                   IMAD.WIDE R14, R14, 0x4, R2 ;          /* 0x0 */
        /*0080*/                   MUFU.EX2 R15, R14 ;                    /* 0x0 */
        /*0090*/              @!P2 ISETP.NE.AND P0, PT, R0, RZ, PT ;      /* 0x0 */
        /*00a0*/               @P0 BRA 0x40 ;                             /* 0x0 */
        /*00b0*/                   UIADD3 UR4, UR4, 0x1, URZ ;            /* 0x0 */
        /*00c0*/               @P3 BRA 0x10 ;                             /* 0x0 */
        /*00d0*/               @P4 EXIT ;                                 /* 0x0 */
        /*00e0*/                   EXIT ;                                 /* 0x0 */
        /*00f0*/                   MUFU.EX2 R13, R12 ;                    /* 0x0 */
        /*0100*/                   BRA 0x10 ;                             /* 0x0 */
"""


def test_loops_of_a_listing() -> None:
    code = sass.parse(LISTING)
    assert code[-1].address == 0xE0
    assert [(loop.first, loop.last) for loop in sass.loops(code)] == [
        (0x20, 0x30),
        (0x40, 0xA0),
        (0x10, 0xC0),
    ]


def test_an_inner_loop_counts_for_each_of_its_pairs() -> None:
    found = sass.per_pair(sass.parse(LISTING), sass.Nest(pairs=2))
    assert found == {"issue": 3.5, "lsu": 2.0, "fma": 1.0, "imad": 0.5, "mufu": 1.0, "alu": 0.5}


def test_loops_around_count_as_often_as_they_come_around() -> None:
    """Eight pairs: four passes of 7 instructions, three of 2 beside them, and 3 once."""
    found = sass.per_pair(sass.parse(LISTING), sass.Nest(pairs=2, trips=(4,), others=3))
    assert found["issue"] == (4 * 7 + 3 * 2 + 3) / 8
    assert found["lsu"] == (4 * 4 + 3 * 1 + 2) / 8
    assert found["l2"] == 8 / 8


@pytest.mark.parametrize("nest", [sass.Nest(pairs=4), sass.Nest(pairs=2, trips=(4, 2))], ids=str)
def test_another_loop_than_meant_is_an_error(nest: sass.Nest) -> None:
    with pytest.raises(ValueError, match="expected"):
        sass.per_pair(sass.parse(LISTING), nest)


@pytest.mark.parametrize(
    ("opcode", "operands", "products", "words"),
    [
        ("HMMA.16816.F32", "R4, R8, R12, R4", 64, 0),
        ("HMMA.1688.F32.TF32", "R4, R8, R12, R4", 64, 0),
        # Of four warps: x and y from shared memory, or y alone.
        ("HGMMA.64x32x16.F32", "R24, gdesc[UR16], R24", 256, 6),
        ("HGMMA.64x32x16.F32", "R24, R4, gdesc[UR16], R24", 256, 2),
    ],
)
def test_products_on_matrix_units(opcode: str, operands: str, products: int, words: int) -> None:
    found = sass.costs(sass.Instruction(0, opcode, operands, None))
    assert (found["matrix"], found["lsu"]) == (products, words)


def test_the_slowest_pipe_or_memory_takes_the_time() -> None:
    work = Work("any", "any", pairs=1e10, octets=0.0)
    found = predict.predict({"issue": 16.0, "mufu": 1.0, "fma": 8.0}, work, H100)
    assert (found.binding, found.ceiling) == ("issue", "exp")
    assert found.share == pytest.approx(0.5)  # 128 instructions a clock, and 16 exponentials
    assert found.seconds == pytest.approx(1e10 * 16 / (128 * 132 * 1.83e9))
    wide = Work("any", "any", pairs=1.0, octets=4.8e12)
    assert predict.predict({"issue": 16.0}, wide, H200).binding == "memory"
    assert predict.predict({"issue": 16.0}, wide, H200).seconds == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("registers", "shared", "warps", "blocks"),
    [(255, 0, 4, 2), (32, 0, 32, 2), (32, 80 * 1024, 4, 2), (16, 0, 1, 32)],
)
def test_blocks_of_a_multiprocessor(registers: int, shared: int, warps: int, blocks: int) -> None:
    assert A100.resident(registers, shared, warps) == blocks


def test_a_table_is_read_back_and_compared() -> None:
    one = Counted("cuda sweep d=3", 90, {"issue": 14.53, "mufu": 1.04, "fp64": 0.02}, 120, 4, 20000)
    text = "\n".join(predict.count_table([one]))
    assert predict.read_counts(text)["cuda sweep d=3", 90]["issue"] == 14.53
    assert predict.differences(text, [one]) == []
    grown = Counted("cuda sweep d=3", 90, one.pipes | {"issue": 17.0}, 120, 4, 20000)
    assert predict.differences(text, [grown]) == [
        "cuda sweep d=3, sm_90: 17.00 issue a pair, 14.53 in the table"
    ]
    other = Counted("cuda sweep d=3", 80, one.pipes, 120, 4, 20000)
    assert predict.differences(text, [other]) == ["cuda sweep d=3, sm_80: not in the table"]


def test_a_sweep_in_three_dimensions_reaches_half_of_the_exponentials() -> None:
    """u - v, its square, the logit and both sums: 10 operations in float32 a pair, and one exponential."""
    if compiled.extension() is None:
        pytest.skip("this otcore was built without CUDA: no nvcc where it was built")
    counts = {(one.kernel, one.capability): one.pipes for one in kernels.cuda_counts()}
    sweep = counts["cuda sweep d=3", 90]
    assert sweep["fma"] == pytest.approx(10, rel=0.1)
    assert sweep["mufu"] == pytest.approx(1, rel=0.1)
    work = next(work for work in kernels.cuda_work() if work.kernel == "cuda sweep d=3")
    assert work.pairs == 1e10
    assert predict.predict(sweep, work, H200).share >= 0.5


def test_triton_keeps_two_programs_on_a_multiprocessor() -> None:
    """At d = 64: one takes exponentials while another multiplies."""
    for capability, chip in ((80, A100), (90, H100)):
        for kernel, _, launch in kernels.triton_launches(capability):
            if kernel == "triton sweep d=64":
                found = kernels.triton_count(kernel, launch, capability)
                assert chip.resident(found.registers, found.shared, found.warps) >= 2
                break


def test_a_hilbert_curve_goes_from_cell_to_cell() -> None:
    side = torch.arange(16.0)
    grid = torch.stack(torch.meshgrid(side, side, indexing="ij"), -1).view(-1, 2)
    along = grid[tiles.along_hilbert(grid)]
    assert torch.equal((along[1:] - along[:-1]).abs().sum(-1), torch.ones(255))


def test_tiles_that_are_skipped_hold_no_pair_that_counts() -> None:
    n, m, eps = 900, 700, 2e-4
    x, y = cloud(n, 2, 1), cloud(m, 2, 2)
    f, g = 0.01 * cloud(n, 1, 3).squeeze(-1), 0.01 * cloud(m, 1, 4).squeeze(-1)
    bits = (f[:, None] + g - 0.5 * torch.cdist(x, y).square()) / (eps * math.log(2))
    x_tiles, y_tiles = (-(-count // tiles.COLUMNS) for count in (n, m))
    everything = float(x_tiles * y_tiles * tiles.COLUMNS**2)
    found = tiles.visited(x, y, f, g, eps, rows=tiles.COLUMNS)
    assert float((bits >= -40).sum()) <= found < 0.6 * everything
    assert tiles.visited(x, y, f, g, 1.0, rows=tiles.COLUMNS) == everything
