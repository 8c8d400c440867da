"""The experiment as it is declared: config, grid, cards, what Snakemake asks. Imports no torch."""
