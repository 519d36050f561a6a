"""The embedded domain: cartoon faces drawn from numbers, whose truth is known."""
