"""What the machine code of a kernel does for a pair of points, counted in cuobjdump's listing.

The loop that takes exponentials is found by its backward branch. Its instructions are sorted by the unit of a
multiprocessor that executes them ("pipe"), in the numbers that each thread asks of it:

    issue   instructions of any kind          fma     float32 additions, products and integer ones
    imad    integer products alone            alu     comparisons, logic, integer additions, moves
    mufu    exponentials, roots, conversions  fp64    float64 arithmetic
    lsu     4-byte words of shared or global memory, and shuffles
    l2      bytes of global memory, were none of them in the first-level cache
    matrix  products of float16 numbers on matrix units (one of tf32 counts two)

An instruction counts as executed once each time its loop comes around, whatever its predicate: the counts are
upper bounds where code is conditional, but a branch out of the loop and back is not followed.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from math import prod

WARP, WARPGROUP = 32, 128
EXPONENTIAL = "MUFU.EX2"

_LINE = re.compile(r"^\s*/\*([0-9a-f]{4,})\*/\s+(@!?U?P\w+\s+)?([A-Z][\w.]*)\s*([^;]*);", re.MULTILINE)
_PIPES = {
    "fma": "FFMA FADD FMUL IMAD HFMA2 HADD2 HMUL2 IMUL XMAD",
    "mufu": "MUFU F2F F2I I2F FRND POPC FLO BREV",
    "fp64": "DADD DMUL DFMA DSETP DMNMX",
    "lsu": "LDS STS LDG STG LD ST LDGSTS LDSM STSM SHFL RED REDG ATOM ATOMG ATOMS LDL STL",
    "matrix": "HMMA HGMMA",
    # On paths of their own: issued, and nothing more.
    "": "BRA BSSY BSYNC BAR WARPSYNC NOP EXIT RET CALL YIELD DEPBAR LDGDEPBAR WARPGROUP ARRIVES SYNCS ERRBAR "
    "MEMBAR FENCE CCTL ENDCOLLECTIVE LDC ULDC S2R S2UR R2UR BRX BMOV RPCMOV",
}
_GLOBAL = ["LDG", "STG", "LD", "ST", "LDGSTS", "RED", "REDG", "ATOM", "ATOMG"]
_PIPE_OF = {name: pipe for pipe, names in _PIPES.items() for name in names.split()}


@dataclass(frozen=True)
class Instruction:
    """`target` is where a branch goes."""

    address: int
    opcode: str
    operands: str
    target: int | None


@dataclass(frozen=True)
class Loop:
    """Addresses of the first instruction and of the branch back to it."""

    first: int
    last: int

    def holds(self, address: int) -> bool:
        return self.first <= address <= self.last

    def encloses(self, other: Loop) -> bool:
        return self != other and self.first <= other.first and other.last <= self.last


def parse(listing: str) -> list[Instruction]:
    """The instructions of one kernel up to its last end; functions and rare paths follow that."""
    found: list[Instruction] = []
    end = 0
    for address, predicate, opcode, operands in _LINE.findall(listing):
        where = re.search(r"0x([0-9a-f]+)\s*$", operands) if opcode.startswith("BRA") else None
        found.append(Instruction(int(address, 16), opcode, operands, int(where[1], 16) if where else None))
        if opcode.startswith("RET"):
            break
        if opcode == "EXIT" and not predicate:
            end = len(found)
    return found[: end or None]


def loops(code: list[Instruction]) -> list[Loop]:
    """By length; those that go back to the same place are one."""
    last: dict[int, int] = {}
    for one in code:
        if one.target is not None and one.target < one.address:
            last[one.target] = max(last.get(one.target, 0), one.address)
    return sorted((Loop(*ends) for ends in last.items()), key=lambda loop: loop.last - loop.first)


def costs(one: Instruction) -> Counter[str]:
    """What a thread asks of the pipes for an instruction."""
    name, _, rest = one.opcode.partition(".")
    cost = Counter({"issue": 1})
    pipe = _PIPE_OF.get(name, "" if name.startswith("U") else "alu")
    if pipe == "lsu":
        cost["lsu"] = words = _words(one.opcode)
        if name in _GLOBAL:
            cost["l2"] = 4 * words
    elif pipe == "matrix":
        cost += _products(name, rest, one.operands)
    elif pipe:
        cost[pipe] = 1
    if name in ("IMAD", "IMUL", "XMAD"):
        cost["imad"] = 1
    return cost


def _words(opcode: str) -> int:
    """4-byte words that a thread moves."""
    if "LDSM" in opcode or "STSM" in opcode:
        return int(opcode[-1]) if opcode[-1].isdigit() else 1
    bits = re.search(r"\.(64|128)\b", opcode)
    return int(bits[1]) // 32 if bits else 1


def _products(name: str, shape: str, operands: str) -> Counter[str]:
    """Of mma.sync (HMMA.16816: 16 x 8 x 16 by a warp) and wgmma (HGMMA.64x32x16, by four warps)."""
    if name == "HGMMA":
        m, n, k = (int(side) for side in shape.split(".")[0].split("x"))
        threads = WARPGROUP
    else:
        digits = re.match(r"16(8)(\d+)", shape)
        assert digits, f"{name}.{shape}: not a known shape"
        m, n, k, threads = 16, 8, int(digits[2]), WARP
    narrow = "TF32" not in shape
    cost = Counter({"matrix": m * n * k * (1 if narrow else 2) // threads})
    if name == "HGMMA":
        # The matrix units read y from shared memory, and x too where it is not in registers.
        from_registers = re.match(r"\s*R\d+,\s*R\d+,", operands)
        numbers = n * k if from_registers else (m + n) * k
        cost["lsu"] = numbers * (2 if narrow else 4) // 4 // threads
    return cost


@dataclass(frozen=True)
class Nest:
    """How often the loops around the exponentials come around.

    trips: of the loop that has the exponentials, and of those around it, from the inside; counted is one pass
    of the loop around the last of these, or of the innermost one where there are none.
    others: of the loops beside them.
    pairs: that a thread has in one pass of the innermost loop, or would have were it not unrolled.
    """

    pairs: int
    trips: tuple[int, ...] = ()
    others: int = 1


def per_pair(code: list[Instruction], nest: Nest) -> dict[str, float]:
    """What a thread asks of each pipe for a pair.

    Raises:
        ValueError: when the code has no such loops.
    """
    everything = loops(code)
    exponentials = [one.address for one in code if one.opcode == EXPONENTIAL]

    def count(loop: Loop) -> int:
        return sum(loop.holds(address) for address in exponentials)

    with_them = [loop for loop in everything if count(loop)]
    innermost = [loop for loop in with_them if not any(loop.encloses(other) for other in with_them)]
    if not innermost:
        raise ValueError("no loop takes exponentials")
    # Elsewhere they are for the few sums that are computed again, or for a first tile.
    depth = {loop: sum(other.encloses(loop) for other in with_them) for loop in innermost}
    chain = [max(innermost, key=lambda loop: (count(loop), depth[loop]))]
    for loop in with_them:
        if len(chain) <= len(nest.trips) and loop.encloses(chain[-1]):
            chain.append(loop)
    if len(chain) <= len(nest.trips):
        raise ValueError(
            f"{len(chain)} nested loops take exponentials; expected {len(nest.trips) + 1} or more"
        )
    trips = dict(zip(chain, (*nest.trips, 1), strict=True))

    total: Counter[str] = Counter()
    for one in code:
        if not chain[-1].holds(one.address):
            continue
        times = 1
        for loop in everything:
            if loop.holds(one.address) and not loop.encloses(chain[-1]):
                times *= trips.get(loop, nest.others)
        total += Counter({pipe: times * asked for pipe, asked in costs(one).items()})
    inside = count(chain[0])
    if inside < nest.pairs:
        raise ValueError(f"{inside} exponentials in the loop; expected {nest.pairs} or more")
    pairs = inside // nest.pairs * nest.pairs * prod(nest.trips)
    return {pipe: asked / pairs for pipe, asked in total.items()}
