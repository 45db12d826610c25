"""Print a table of sites in the layout `sequence,condition,value`, invented: to see the layout, and to try `--sites`.

    python docs/examples/splicing/made_up_table.py > my_sites.csv

Values are the invented strengths of `sites.py` under two tissues, with noise.
"""

from __future__ import annotations

import csv
import sys

from sites import MOTIFS, TISSUES, Sites, strength

SITES, NOISE = 600, 1.0


def main() -> None:
    """Write the table to stdout."""
    sites = Sites(seed=0)
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(("sequence", "condition", "value"))
    for number in range(SITES):
        site = sites.donor(MOTIFS[number % len(MOTIFS)])
        for tissue in TISSUES:
            writer.writerow(
                (site, tissue[1:-1], f"{strength(site, tissue) + sites.random.normal(0, NOISE):.3f}")
            )


if __name__ == "__main__":
    main()
