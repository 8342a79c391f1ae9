"""Contenders on common questions: measures, tables and the report page."""
