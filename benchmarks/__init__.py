"""Side-by-side measurements; every figure that is quoted is a ratio of two timings of one run."""
