"""The measures of a run over all its methods, and the report that shows them."""
