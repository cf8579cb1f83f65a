"""Brings targets after the rows: dispatch, claim, project, settle; stateless workers that may die at any moment."""
