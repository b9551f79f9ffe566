"""The commands of the course, one a module.

``add_options(parser)`` says what a command can be told. ``run(options, arguments)`` does it, prints what came of it and
returns the exit status; ``arguments`` are the words of the command line.
"""
