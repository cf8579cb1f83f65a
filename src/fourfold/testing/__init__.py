"""For tests of this library and of what is built on it: contract suites, crash points, servers."""
