"""In which order equal instances are named, so that each gets the same share of the load.

Clients take the first address, or the first few; answers are cut to a few records. So every instance must be first
equally often, and at each further place equally often. When an instance fails, its clients go on to the next one: so
every instance must follow every other one equally often too. Random order has all this on average; answers that are
kept and used again must have it by construction.

The orders used are the rows of a Latin square after E. J. Williams ("Experimental designs balanced for the estimation
of residual effects of treatments", 1949): row 0 is 0, n-1, 1, n-2, ...; row r adds r modulo n. Every number stands once
in every row and column, and with an even n every ordered pair is adjacent in exactly one row. With an odd n the square
and its mirror image together have every ordered pair twice, so the rows of both take turns.
"""


def rows_of(count: int) -> int:
    """How many rows it takes until every number has had its share of every place and of every neighbour."""
    return count if count % 2 == 0 else 2 * count


def order(count: int, row: int, take: int) -> list[int]:
    """The first `take` numbers of a row: of 0..count-1, each at most once."""
    if count == 0:
        return []
    mirrored = count % 2 and row // count % 2
    numbers = []
    for place in range(min(take, count)):
        at = count - 1 - place if mirrored else place
        step = at // 2 if at % 2 == 0 else count - 1 - at // 2
        numbers.append((row + step) % count)
    return numbers
