"""The page in the browser: draw a digit, train a network, break it and watch."""
