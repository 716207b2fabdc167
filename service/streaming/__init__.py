"""Request and response streams of the score route, with flow control in both directions."""
