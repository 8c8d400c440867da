"""Stored rows -> numbers: means, intervals, comparisons, signs of masked gradients, doubts."""
