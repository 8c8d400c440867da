"""Numbers -> words and pages."""
