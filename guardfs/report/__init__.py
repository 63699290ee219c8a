"""The report: one page that shows what happened, for people and for bug reports."""
