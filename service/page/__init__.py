"""HTML that the service sends as it is."""
