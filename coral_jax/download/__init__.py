"""Fetching published weights, and domains made of them: python -m coral_jax.download NAME"""
