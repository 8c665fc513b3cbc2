"""Ways out and back: other frameworks and file formats, each an extra."""
