"""Measuring edits: methods on prompts, in tables, sheets and a report."""
