"""The methods that the paper compares CORAL with, as their authors run them."""
