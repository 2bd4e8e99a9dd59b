"""The tables of the paper and of this repository: their runs, results and reports."""
