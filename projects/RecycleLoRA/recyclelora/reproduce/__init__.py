"""The tables of the paper and of this repository: runs, results and reports."""
