"""The command line: each command parses, calls the library and renders; one file a command."""
