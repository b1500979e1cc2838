"""Shows a visitor's picture with its heat in a browser: `camviz serve`.

Its floor lies between the command line and the pipeline: like a command, it asks the pipeline for
plans and explanations, and nothing below knows that there is a server.
"""
