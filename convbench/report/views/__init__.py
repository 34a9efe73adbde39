"""Decide what is told about a result: tables, notes and charts, before any format."""
